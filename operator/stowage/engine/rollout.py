"""How many replicas may exist now, and how a changed template replaces them.

No replica is asked for that the snapshot has no place for. A new template starts its first replica beside the old ones
only where a spare place exists; otherwise it replaces in place, which frees the place first, and says so. A template
that would have no place at all waits, and the old one goes on.
"""

from __future__ import annotations

from dataclasses import dataclass

from stowage.api.conditions import Reason
from stowage.diagnosis.pod import is_bound
from stowage.engine.record import InForce
from stowage.engine.room import own_room, released_room
from stowage.engine.situation import Situation
from stowage.engine.verdict import Verdict
from stowage.engine.wanted import wanted_replicas
from stowage.hardware.pools import pool_of
from stowage.planning.placement import place_replicas
from stowage.planning.plan import Plan
from stowage.render.pod_template import template_hash


@dataclass(frozen=True, slots=True)
class Rollout:
    """`replicas` to render, how many of them may `surge` beside the old ones, and what to say about it.

    `held` says why a new template must wait; the target is then still the old one.
    """

    replicas: int
    surge: int
    able_to_scale: Verdict
    held: Verdict | None = None


def decide_rollout(situation: Situation, target: InForce) -> Rollout:
    """Decide replicas and surge for the target."""
    replicas, able = _placeable_replicas(situation, target)
    record = situation.in_force
    if record is None:
        return Rollout(replicas, 0, able)
    if record.template_hash == target.template_hash:
        return Rollout(replicas, 0 if _is_stuck(situation, target) else record.surge, able)
    return _replace(situation, target, replicas, able)


def _replace(situation: Situation, target: InForce, replicas: int, able: Verdict) -> Rollout:
    wish = target.spec.rollout.strategy
    running = any(is_bound(pod) for pod in situation.world.pods)
    # A rollout is no reason to have a pool grow: a spare place is one that exists.
    spare = running and bool(place_replicas(target.plan, own_room(situation), 1, after_scale_up=False))
    if running and not spare and (wish == "Surge" or (replicas == 0 and situation.replicas > 0)):
        why = "spec.rollout.strategy is Surge and no" if wish == "Surge" else "no"
        message = f"The new template waits: {why} place exists for one of its replicas; the old ones go on."
        return Rollout(replicas, 0, able, Verdict(True, Reason.WAITING_FOR_SPARE_GPUS, message))
    return Rollout(replicas, int(spare and wish != "InPlace"), able)


def _is_stuck(situation: Situation, target: InForce) -> bool:
    """Whether a surge lost its spare place to somebody else: old replicas have to make room after all."""
    if target.spec.rollout.strategy != "Auto":
        return False
    hashes = {template_hash(pod) for pod in situation.world.pods if is_bound(pod)}
    waiting = any(
        not is_bound(pod) and template_hash(pod) == target.template_hash for pod in situation.world.pods
    )
    old_ones_run = bool(hashes - {target.template_hash})
    room = own_room(situation)
    return waiting and old_ones_run and not place_replicas(target.plan, room, 1, after_scale_up=False)


def replacing_in_place(situation: Situation) -> bool:
    """Whether the live Deployment replaces its replicas in place."""
    return situation.in_force is not None and situation.in_force.surge == 0


def _placeable_replicas(situation: Situation, target: InForce) -> tuple[int, Verdict]:
    """Count what is placed and what could be: replicas of another template hold a place only until they stop."""
    plan = target.plan
    wanted = wanted_replicas(situation, plan)
    placed = sum(is_bound(pod) and template_hash(pod) == target.template_hash for pod in situation.world.pods)
    beside = place_replicas(plan, own_room(situation), max(0, wanted + 1 - placed))
    anew = place_replicas(plan, released_room(situation), wanted + 1)
    possible = max(len(anew), placed + len(beside))
    if possible > wanted:
        names = beside if placed + len(beside) > wanted else anew
        return wanted, Verdict(
            True, Reason.READY_FOR_NEW_SCALE, _one_more(pool_of(names[-1]) if names else None)
        )
    return min(wanted, possible), _no_more(plan, wanted, possible)


def _one_more(pool: str | None) -> str:
    if pool is None:
        return "There is a place for another replica."
    return f"There is a place for another replica once the pool {pool} has grown by a node."


def _no_more(plan: Plan, wanted: int, possible: int) -> Verdict:
    what = f"{plan.gpus_per_replica} x {plan.gpu_product}" if plan.gpu_product else "CPU and memory"
    message = f"No place is left for a further replica ({what} each on one node)."
    if possible < wanted:
        message = (
            f"{wanted} replicas are asked for and {possible} can be placed ({what} each on one node); "
            f"add nodes, free GPUs or lower spec.replicas."
        )
    reason = Reason.INSUFFICIENT_GPUS if plan.gpu_product else Reason.INSUFFICIENT_NODE_RESOURCES
    return Verdict(False, reason, message)
