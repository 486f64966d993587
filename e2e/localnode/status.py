"""Turn what the node knows of a pod's containers into the pod's status, as a kubelet reports it. Pure.

The rules for phase and conditions follow the Kubernetes documentation ("Pod lifecycle"). Readiness gates are
other people's conditions: they are read here and never written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Termination:
    """How one run of a container ended."""

    exit_code: int
    reason: str
    started_at: datetime
    finished_at: datetime
    message: str = ""
    container_id: str = ""


@dataclass(slots=True)
class ContainerState:
    """What the node knows of one container: exactly one of waiting, running and terminated is current."""

    name: str
    image: str
    waiting: tuple[str, str] | None = ("PodInitializing", "")
    running_since: datetime | None = None
    terminated: Termination | None = None
    last_terminated: Termination | None = None
    restart_count: int = 0
    started: bool = False
    ready: bool = False
    container_id: str = ""


@dataclass(slots=True)
class PodState:
    """What the node knows of one pod; `failure` (reason, message) ends it whatever its containers do."""

    host_address: str
    init_containers: list[ContainerState]
    containers: list[ContainerState]
    restart_policy: str
    start_time: datetime
    address: str = ""
    volumes_ready: bool = False
    failure: tuple[str, str] | None = None
    transitions: dict[str, tuple[str, datetime]] = field(default_factory=dict)  # condition -> status, since


def rfc3339(moment: datetime) -> str:
    """Return a time as the API writes it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def phase(state: PodState, *, terminating: bool) -> str:
    """Return the pod's phase; while it is being deleted nothing restarts any more."""
    if state.failure:
        return "Failed"
    initialized = all(_succeeded(entry) for entry in state.init_containers)
    if not initialized:
        failed = any(entry.terminated and entry.terminated.exit_code for entry in state.init_containers)
        return "Failed" if failed and (terminating or state.restart_policy == "Never") else "Pending"
    if all(entry.terminated for entry in state.containers) and (terminating or _all_final(state)):
        return "Succeeded" if all(_succeeded(entry) for entry in state.containers) else "Failed"
    begun = any(
        entry.running_since or entry.terminated or entry.last_terminated for entry in state.containers
    )
    return "Running" if begun else "Pending"


def pod_status(state: PodState, pod: Mapping[str, Any], now: datetime) -> Json:
    """Return the whole status that the node owns; `state.transitions` remembers conditions' times."""
    terminating = bool(pod["metadata"].get("deletionTimestamp"))
    current = phase(state, terminating=terminating)
    status: Json = {
        "phase": current,
        "hostIP": state.host_address,
        "hostIPs": [{"ip": state.host_address}],
        "startTime": rfc3339(state.start_time),
        "containerStatuses": [container_status(entry) for entry in state.containers],
        "initContainerStatuses": [container_status(entry) for entry in state.init_containers],
        "conditions": _conditions(state, pod, current, now),
        "reason": state.failure[0] if state.failure else None,
        "message": state.failure[1] if state.failure else None,
    }
    if pod["metadata"].get("generation"):
        status["observedGeneration"] = pod["metadata"]["generation"]
    if state.address:
        status["podIP"] = state.address
        status["podIPs"] = [{"ip": state.address}]
    return status


def container_status(state: ContainerState) -> Json:
    """Return one entry of `containerStatuses`."""
    if state.running_since:
        current: Json = {"running": {"startedAt": rfc3339(state.running_since)}}
    elif state.terminated:
        current = {"terminated": _terminated(state.terminated)}
    else:
        reason, message = state.waiting or ("ContainerCreating", "")
        current = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
    return {
        "name": state.name,
        "image": state.image,
        "imageID": f"local/{state.image}" if state.container_id else "",
        "containerID": state.container_id,
        "ready": state.ready,
        "started": state.started,
        "restartCount": state.restart_count,
        "state": current,
        "lastState": {"terminated": _terminated(state.last_terminated)} if state.last_terminated else {},
    }


def _terminated(run: Termination) -> Json:
    entry: Json = {
        "exitCode": run.exit_code,
        "reason": run.reason,
        "startedAt": rfc3339(run.started_at),
        "finishedAt": rfc3339(run.finished_at),
        "containerID": run.container_id,
    }
    return {**entry, "message": run.message} if run.message else entry


def _succeeded(entry: ContainerState) -> bool:
    return entry.terminated is not None and entry.terminated.exit_code == 0


def _all_final(state: PodState) -> bool:
    """Whether every container has ended for good under the pod's restart policy."""
    if state.restart_policy == "Always":
        return False
    return state.restart_policy == "Never" or all(_succeeded(entry) for entry in state.containers)


def _conditions(state: PodState, pod: Mapping[str, Any], current: str, now: datetime) -> list[Json]:
    done = current in ("Succeeded", "Failed")
    initialized = [entry.name for entry in state.init_containers if not _succeeded(entry)]
    unready = [entry.name for entry in state.containers if not entry.ready]
    gates = [gate["conditionType"] for gate in pod["spec"].get("readinessGates") or []]
    closed = [gate for gate in gates if not _is_true(pod, gate)]
    finished = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(current, "")
    containers = (not unready and not done, finished or "ContainersNotReady", _named("unready", unready))
    ready = containers
    if containers[0] and closed:
        ready = (
            False,
            "ReadinessGatesNotReady",
            f"corresponding condition of {', '.join(closed)} is not True",
        )
    facts = {
        "PodReadyToStartContainers": (state.volumes_ready and not done, "", ""),
        "Initialized": (not initialized, "ContainersNotInitialized", _named("incomplete", initialized)),
        "ContainersReady": containers,
        "Ready": ready,
    }
    return [_condition(state, kind, *fact, now) for kind, fact in facts.items()]


def _named(what: str, names: Sequence[str]) -> str:
    return f"containers with {what} status: [{' '.join(names)}]" if names else ""


def _is_true(pod: Mapping[str, Any], kind: str) -> bool:
    conditions = pod.get("status", {}).get("conditions") or []
    return any(entry["type"] == kind and entry["status"] == "True" for entry in conditions)


def _condition(state: PodState, kind: str, holds: bool, reason: str, message: str, now: datetime) -> Json:
    value = "True" if holds else "False"
    before, since = state.transitions.get(kind, ("", now))
    if before != value:
        since = now
    state.transitions[kind] = (value, since)
    return {
        "type": kind,
        "status": value,
        "lastProbeTime": None,
        "lastTransitionTime": rfc3339(since),
        "reason": None if holds or not reason else reason,
        "message": None if holds or not message else message,
    }
