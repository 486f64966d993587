from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from e2e.localnode.status import ContainerState, PodState, Termination, phase, pod_status

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def ended(code: int) -> Termination:
    return Termination(code, "Completed" if code == 0 else "Error", NOW, NOW)


def container(
    kind: str, *, code: int = 0, ready: bool = False, last: Termination | None = None
) -> ContainerState:
    state = ContainerState("c", "image", ready=ready, last_terminated=last)
    if kind == "running":
        state.waiting, state.running_since = None, NOW
    elif kind == "ended":
        state.waiting, state.terminated = None, ended(code)
    return state


def pod(
    containers: list[ContainerState], *, inits: list[ContainerState] | None = None, policy: str = "Always"
) -> PodState:
    return PodState(
        "127.0.0.1", inits or [], containers, policy, NOW, address="10.244.0.1", volumes_ready=True
    )


@pytest.mark.parametrize(
    ("state", "terminating", "expected"),
    [
        pytest.param(pod([container("waiting")]), False, "Pending", id="nothing has run yet"),
        pytest.param(pod([container("running")]), False, "Running", id="a container runs"),
        pytest.param(
            pod([container("waiting", last=ended(1))]), False, "Running", id="a crash loop is Running"
        ),
        pytest.param(
            pod([container("running")], inits=[container("running")]),
            False,
            "Pending",
            id="an init container runs",
        ),
        pytest.param(
            pod([container("waiting")], inits=[container("ended", code=1)], policy="Never"),
            False,
            "Failed",
            id="an init container failed for good",
        ),
        pytest.param(
            pod([container("waiting")], inits=[container("ended", code=1)]),
            False,
            "Pending",
            id="an init container will be tried again",
        ),
        pytest.param(pod([container("ended")], policy="Never"), False, "Succeeded", id="all ended well"),
        pytest.param(
            pod([container("ended", code=2)], policy="Never"), False, "Failed", id="one ended badly"
        ),
        pytest.param(
            pod([container("ended", code=2)], policy="OnFailure"), False, "Running", id="it will be restarted"
        ),
        pytest.param(
            pod([container("ended")], policy="OnFailure"), False, "Succeeded", id="it need not be restarted"
        ),
        pytest.param(pod([container("ended")]), False, "Running", id="Always restarts even a success"),
        pytest.param(
            pod([container("ended")]), True, "Succeeded", id="but not while the pod is being deleted"
        ),
        pytest.param(
            pod([container("ended", code=143)]), True, "Failed", id="deletion of a container that ended badly"
        ),
    ],
)
def test_phase(state: PodState, terminating: bool, expected: str) -> None:
    assert phase(state, terminating=terminating) == expected


def manifest(**changes: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "generation": 3, **changes.get("metadata", {})},
        "spec": changes.get("spec", {}),
        "status": changes.get("status", {}),
    }


def conditions(status: dict[str, Any]) -> dict[str, str]:
    return {entry["type"]: entry["status"] for entry in status["conditions"]}


def test_a_ready_pod() -> None:
    status = pod_status(pod([container("running", ready=True)]), manifest(), NOW)
    assert conditions(status) == {
        "PodReadyToStartContainers": "True",
        "Initialized": "True",
        "ContainersReady": "True",
        "Ready": "True",
    }
    assert (status["podIP"], status["observedGeneration"]) == ("10.244.0.1", 3)


def test_a_readiness_gate_keeps_a_pod_from_being_ready_until_somebody_opens_it() -> None:
    gates = {"readinessGates": [{"conditionType": "example.com/gate"}]}
    state = pod([container("running", ready=True)])
    closed = pod_status(state, manifest(spec=gates), NOW)
    assert (conditions(closed)["ContainersReady"], conditions(closed)["Ready"]) == ("True", "False")
    opened = {"conditions": [{"type": "example.com/gate", "status": "True"}]}
    assert conditions(pod_status(state, manifest(spec=gates, status=opened), NOW))["Ready"] == "True"


def test_a_failed_pod_says_why_and_is_not_ready() -> None:
    state = pod([container("running", ready=True)])
    state.failure = ("UnsupportedByLocalNode", "spec.hostNetwork")
    status = pod_status(state, manifest(), NOW)
    assert (status["phase"], status["reason"], status["message"]) == (
        "Failed",
        "UnsupportedByLocalNode",
        "spec.hostNetwork",
    )
    assert conditions(status)["Ready"] == "False"


def test_a_condition_keeps_the_time_of_its_last_change() -> None:
    state = pod([container("running")])
    times = []
    for minutes, ready in enumerate([False, False, True, True]):
        state.containers[0].ready = ready
        status = pod_status(state, manifest(), NOW + timedelta(minutes=minutes))
        times += [entry["lastTransitionTime"] for entry in status["conditions"] if entry["type"] == "Ready"]
    assert [time[14:16] for time in times] == ["04", "04", "06", "06"]


def test_the_end_of_a_container_is_reported_whole() -> None:
    state = container("ended", code=7)
    state.terminated = Termination(7, "Error", NOW, NOW, "no memory", "localnode://1")
    status = pod_status(pod([state], policy="Never"), manifest(), NOW)
    (entry,) = status["containerStatuses"]
    assert entry["state"]["terminated"] == {
        "exitCode": 7,
        "reason": "Error",
        "message": "no memory",
        "containerID": "localnode://1",
        "startedAt": "2026-01-02T03:04:05Z",
        "finishedAt": "2026-01-02T03:04:05Z",
    }
