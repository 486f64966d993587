from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from e2e.localnode.addresses import AddressPool
from e2e.localnode.context import NodeContext
from e2e.localnode.resume import resumed_state
from e2e.localnode.status import PodState, phase

NOW = datetime(2026, 1, 2, tzinfo=UTC)
RUNNING = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
WAITING = {"waiting": {"reason": "ContainerCreating"}}


def ended(code: int) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": "Error", "startedAt": "2026-01-01T00:00:00Z"}}


def resume(main: dict[str, Any] | None, init: dict[str, Any] | None = None, **status: Any) -> PodState:
    policy = status.pop("policy", "Always")
    spec: dict[str, Any] = {"containers": [{"name": "main", "image": "i"}], "restartPolicy": policy}
    if init is not None:
        spec["initContainers"] = [{"name": "init", "image": "i"}]
        status["initContainerStatuses"] = [{"name": "init", "restartCount": 0, "state": init}]
    if main:
        status["containerStatuses"] = [{"name": "main", "restartCount": 2, "state": main}]
    context = SimpleNamespace(host_address="127.0.0.1", addresses=AddressPool("10.244.0.0/16"))
    return resumed_state({"metadata": {}, "spec": spec, "status": status}, cast(NodeContext, context), NOW)


def test_a_pod_that_nobody_ran_begins_fresh() -> None:
    state = resume(None, {}).containers[0]
    assert (state.waiting, state.restart_count, state.last_terminated) == (("PodInitializing", ""), 0, None)


def test_a_container_that_ran_is_one_restart_further_and_remembers_that_it_was_lost() -> None:
    state = resume(RUNNING, phase="Running", podIP="10.244.0.7")
    (container,) = state.containers
    assert (container.restart_count, container.terminated) == (3, None)
    assert container.last_terminated is not None
    assert (container.last_terminated.exit_code, container.last_terminated.reason) == (
        137,
        "ContainerStatusUnknown",
    )
    assert state.address == "10.244.0.7"


@pytest.mark.parametrize(
    ("policy", "main", "init", "main_runs", "init_runs"),
    [
        pytest.param("Always", RUNNING, ended(0), True, True, id="init containers run again with their pod"),
        pytest.param("Never", RUNNING, ended(0), False, False, id="Never does not run a second time"),
        pytest.param(
            "Never", WAITING, ended(0), True, True, id="Never has not run yet: what init wrote is gone"
        ),
        pytest.param("OnFailure", ended(0), ended(0), False, False, id="a success is not repeated"),
        pytest.param("OnFailure", ended(1), ended(0), True, True, id="a failure is"),
    ],
)
def test_what_runs_again(policy: str, main: Any, init: Any, main_runs: bool, init_runs: bool) -> None:
    state = resume(main, init, policy=policy, phase="Running")
    assert (state.containers[0].terminated is None) is main_runs
    assert (state.init_containers[0].terminated is None) is init_runs


@pytest.mark.parametrize("final", ["Succeeded", "Failed"])
def test_a_finished_pod_stays_as_it_is(final: str) -> None:
    code = 0 if final == "Succeeded" else 1
    state = resume(ended(code), policy="Never", phase=final, reason="Evicted" if code else None, message="m")
    assert phase(state, terminating=False) == final
    assert state.failure == (("Evicted", "m") if code else None)
