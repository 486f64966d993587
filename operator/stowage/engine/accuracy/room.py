"""What stands in the way of a check that has not begun: the mode, the replicas, a place for its pod.

The replicas come first: a check never takes the GPUs that the lossless plan is about to use, and never asks for GPUs
that the snapshot does not have.
"""

from __future__ import annotations

from stowage.api.v1alpha1 import LLMDeploymentSpec
from stowage.diagnosis.pod import is_bound
from stowage.engine.room import own_room
from stowage.engine.situation import Situation
from stowage.planning.placement import place_replicas
from stowage.planning.plan import Plan
from stowage.render.accuracy_job import Comparison, job_plan
from stowage.render.pod_template import template_hash


def obstacle_to_check(situation: Situation, spec: LLMDeploymentSpec, what: Comparison) -> str | None:
    """Say in one sentence why the check's Job cannot be made now; None where it can."""
    if spec.mode == "Plan":
        return "spec.mode is Plan, so nothing is launched, and no check is."
    if situation.world.ahead:
        return f"The plan of {situation.world.ahead[0]}, which is older, comes first."
    if what.baseline is not None and not _replicas_are_placed(situation, what.baseline):
        return "The replicas of the lossless plan come first."
    if place_replicas(job_plan(what), own_room(situation), 1, after_scale_up=False):
        return None
    return (
        f"It needs {_needs(what.larger)} for itself, and no node has that free beside the running replicas."
    )


def _replicas_are_placed(situation: Situation, baseline: Plan) -> bool:
    record = situation.in_force
    if record is None or record.plan.digest() != baseline.digest():
        return False
    placed = [
        pod for pod in situation.world.pods if is_bound(pod) and template_hash(pod) == record.template_hash
    ]
    others = [pod for pod in situation.world.pods if template_hash(pod) != record.template_hash]
    return not others and len(placed) >= situation.replicas


def _needs(plan: Plan) -> str:
    if plan.gpu_product is None:
        memory_gib = plan.requests.memory_bytes / 2**30
        return f"{plan.requests.cpu_millicores / 1000:g} CPUs and {memory_gib:.1f} GiB of memory"
    return f"{plan.gpus_per_replica} x {plan.gpu_product}"
