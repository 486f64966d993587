"""Make the state of a pod from its object: fresh, or continued after the node's process was restarted.

A restarted node has no processes of before (they died with it): containers that ran are counted as ended, so
that restart counts, back-off and pods that must not run twice stay right. Pure but for reserving the pod's
old address.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from e2e.localnode.context import NodeContext
from e2e.localnode.restart import restarts
from e2e.localnode.status import ContainerState, PodState, Termination

_LOST = 137
_LOST_REASON, _LOST_MESSAGE = (
    "ContainerStatusUnknown",
    "the local node was restarted; the container ended with it",
)


def resumed_state(pod: Mapping[str, Any], context: NodeContext, now: datetime) -> PodState:
    """Return the state to begin with."""
    spec, status = pod["spec"], pod.get("status", {})
    policy = spec.get("restartPolicy") or "Always"
    final = status.get("phase") in ("Succeeded", "Failed")
    first = ("PodInitializing" if spec.get("initContainers") else "ContainerCreating", "")
    state = PodState(
        host_address=context.host_address,
        init_containers=_containers(spec.get("initContainers") or [], status, "initContainerStatuses", now),
        containers=_containers(spec["containers"], status, "containerStatuses", now),
        restart_policy=policy,
        start_time=_moment(status.get("startTime")) or now,
        transitions={
            entry["type"]: (entry["status"], _moment(entry.get("lastTransitionTime")) or now)
            for entry in status.get("conditions") or []
        },
    )
    if final and status["phase"] == "Failed" and status.get("reason"):
        state.failure = (status["reason"], status.get("message", ""))
    for entry in (*state.init_containers, *state.containers):
        entry.waiting = entry.waiting and first
    if not final:
        _rewind(state)
    address = status.get("podIP")
    if address and context.addresses.reserve(address):
        state.address = address
    return state


def _containers(
    specs: Sequence[Mapping[str, Any]], status: Mapping[str, Any], key: str, now: datetime
) -> list[ContainerState]:
    known = {entry["name"]: entry for entry in status.get(key) or []}
    return [_container(entry, known.get(entry["name"], {}), now) for entry in specs]


def _container(spec: Mapping[str, Any], known: Mapping[str, Any], now: datetime) -> ContainerState:
    state = ContainerState(name=spec["name"], image=spec["image"], restart_count=known.get("restartCount", 0))
    current = known.get("state") or {}
    state.last_terminated = _termination((known.get("lastState") or {}).get("terminated"), now)
    if "running" in current:
        begun = _moment(current["running"].get("startedAt")) or now
        state.terminated = Termination(
            _LOST, _LOST_REASON, begun, now, _LOST_MESSAGE, known.get("containerID", "")
        )
    elif "terminated" in current:
        state.terminated = _termination(current["terminated"], now)
    if state.terminated:
        state.waiting = None
        state.container_id = known.get("containerID", "")
    return state


def _rewind(state: PodState) -> None:
    """Prepare containers that will run again: their next run is one restart more.

    Init containers run again with them, because what they wrote into an emptyDir is gone.
    """
    policy = state.restart_policy
    for entry in state.containers:
        if entry.terminated and restarts(policy, entry.terminated.exit_code, is_init=False):
            _again(entry)
    if not all(entry.terminated for entry in state.containers):
        for entry in state.init_containers:
            if entry.terminated and (policy != "Never" or entry.terminated.exit_code == 0):
                _again(entry)


def _again(entry: ContainerState) -> None:
    entry.last_terminated, entry.terminated = entry.terminated, None
    entry.waiting = ("ContainerCreating", "")
    entry.restart_count += 1


def _termination(entry: Mapping[str, Any] | None, now: datetime) -> Termination | None:
    if not entry:
        return None
    return Termination(
        exit_code=entry["exitCode"],
        reason=entry.get("reason", ""),
        started_at=_moment(entry.get("startedAt")) or now,
        finished_at=_moment(entry.get("finishedAt")) or now,
        message=entry.get("message", ""),
        container_id=entry.get("containerID", ""),
    )


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if text else None
