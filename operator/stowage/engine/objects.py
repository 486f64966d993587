"""Which objects should exist, and which of ours should not any more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from stowage.api.v1alpha1 import LLMDeploymentSpec
from stowage.engine.accuracy.check import unneeded_jobs
from stowage.engine.accuracy.record import AccuracyRecord
from stowage.engine.decision import Decision
from stowage.engine.inputs import recorded_spec
from stowage.engine.record import InForce
from stowage.engine.review import about
from stowage.engine.rollout import Rollout
from stowage.engine.situation import Situation
from stowage.engine.start_up_record import start_ups_json
from stowage.render import names
from stowage.render.config_map import accuracy_record_map, launch_config_map, launch_config_map_name
from stowage.render.deployment import deployment, rolling_update
from stowage.render.inspection_pod import inspection_pod
from stowage.render.pdb import pod_disruption_budget
from stowage.render.podmonitor import POD_MONITOR_KIND, pod_monitor
from stowage.render.service import service
from stowage.world import ModelQuery, ObjectRef


def serving_objects(
    situation: Situation, target: InForce, rollout: Rollout, decision: Decision
) -> tuple[Mapping[str, Any], ...]:
    """The objects of a serving LLMDeployment; what others refer to comes first."""
    resource = situation.resource
    workload = deployment(
        resource,
        target.template,
        replace(target, surge=rollout.surge).to_dict(recorded_spec(target.spec)),
        rollout.replicas,
        rolling_update(rollout.surge),
    )
    remembered = _accuracy_record(situation, decision)
    if not remembered.is_empty:
        workload["metadata"]["annotations"][names.ACCURACY_ANNOTATION] = remembered.to_json()
    workload["metadata"]["annotations"] |= _seen(situation, target, decision)
    objects = [
        launch_config_map(resource, target.launch),
        workload,
        service(resource),
        pod_disruption_budget(resource),
    ]
    if POD_MONITOR_KIND in situation.world.installed_kinds:
        objects.append(pod_monitor(resource))
    return tuple(objects)


def _seen(situation: Situation, target: InForce, decision: Decision) -> dict[str, str]:
    """What is remembered of start-ups, and of a better plan than the target."""
    found = decision.review
    start_ups = situation.start_ups if found is None else found.start_ups
    better = (situation.better if found is None else found.better).of(about(target.spec, target.plan))
    annotations = {names.START_UPS_ANNOTATION: start_ups_json(start_ups)} if start_ups else {}
    return annotations if better.is_empty else {**annotations, names.BETTER_ANNOTATION: better.to_json()}


def inspection_objects(
    situation: Situation, spec: LLMDeploymentSpec, query: ModelQuery | None
) -> tuple[Mapping[str, Any], ...]:
    """The pod that reads the model, while somebody waits for what it reads.

    A pod is never changed once it exists: applying it again would ask for changes that the API server refuses.
    """
    if query is None or query.inspection_pod is None:
        return ()
    live = {ref.name for ref, _ in situation.children("Pod")}
    if query.inspection_pod in live:
        return ()
    return (inspection_pod(situation.resource, spec, situation.world.options, query.inputs),)


def accuracy_objects(
    situation: Situation, decision: Decision, *, has_workload: bool
) -> tuple[Mapping[str, Any], ...]:
    """The Job of a check that begins, and what is remembered where no workload object can carry it.

    A Job is never changed once it exists, for the same reason as an inspection pod.
    """
    remembered = _accuracy_record(situation, decision)
    objects = list(decision.accuracy.objects) if decision.accuracy is not None else []
    if not has_workload and remembered.results:
        objects.append(accuracy_record_map(situation.resource, remembered.to_json()))
    return tuple(objects)


def _accuracy_record(situation: Situation, decision: Decision) -> AccuracyRecord:
    return decision.accuracy.record if decision.accuracy is not None else situation.accuracy


def surplus_objects(
    situation: Situation, wanted: tuple[Mapping[str, Any], ...], decision: Decision
) -> tuple[ObjectRef, ...]:
    """Our objects that nothing needs: unreferenced configurations, answered inspection pods, pointless checks."""
    keep = _launch_names_in_use(situation) | {obj["metadata"]["name"] for obj in wanted}
    surplus = [ref for ref, _ in situation.children("ConfigMap") if ref.name not in keep]
    if decision.accuracy is not None:
        pointless = unneeded_jobs(situation, decision.accuracy.job)
        surplus += [ref for ref, _ in situation.children("Job") if ref.name in pointless]
    wanted_pod = decision.query.inspection_pod if decision.query else None
    surplus += [
        ref
        for ref, pod in situation.children("Pod")
        if pod["metadata"]["labels"].get(names.ROLE_LABEL) == names.INSPECT_ROLE and ref.name != wanted_pod
    ]
    return tuple(sorted(surplus))


def _launch_names_in_use(situation: Situation) -> set[str]:
    """A launch configuration is kept while the record, a ReplicaSet or a pod refers to it."""
    used: set[str] = set()
    if situation.in_force is not None:
        used.add(launch_config_map_name(situation.name, situation.in_force.launch))
    for ref, obj in situation.world.children.items():
        # Owned by the Deployment, not by us; an old one is what `kubectl rollout undo` goes back to.
        if ref.kind in ("ReplicaSet", "Job"):
            used.update(_mounted_config_maps(obj["spec"]["template"]["spec"]))
    if situation.deployment is not None:
        used.update(_mounted_config_maps(situation.deployment["spec"]["template"]["spec"]))
    for pod in situation.world.pods:
        used.update(_mounted_config_maps(pod["spec"]))
    return used


def _mounted_config_maps(pod_spec: Mapping[str, Any]) -> Iterator[str]:
    for volume in pod_spec.get("volumes") or ():
        if "configMap" in volume:
            yield volume["configMap"]["name"]
