"""Models from ConfigMaps and inspection pods."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.feed.agent_http import AgentUnavailable
from stowage.feed.models.config_map_source import read_config_map
from stowage.feed.models.inspection import inspect_by_pod
from stowage.feed.models.reader import ModelReader
from stowage.feed.retries import retry_seconds
from stowage.kube.kinds import POD
from stowage.kube.store import Change, Store
from stowage.world import ModelQuery
from stowage_runtime.contract import CheckpointSummary
from tests.feed.test_resolutions import SUMMARY
from tests.kube.fake_time import run
from tests.kube.objects import KEY, pod
from tests.kube.test_applier import FakeServer

BY_MAP = ModelQuery(KEY, "1", "hf://org/tiny", config_map="tiny")
BY_POD = ModelQuery(KEY, "1", "pvc://models/tiny", inspection_pod="llama-inspect-1")


@pytest.mark.parametrize(
    ("data", "reason", "words"),
    [
        pytest.param(
            {}, Reason.INVALID_CONFIG_MAP, "neither checkpoint.json nor config.json", id="an empty one"
        ),
        pytest.param({"config.json": "{"}, Reason.INVALID_CONFIG_MAP, "not JSON", id="a broken config.json"),
        pytest.param({"config.json": "[]"}, Reason.INVALID_CONFIG_MAP, "not a JSON object", id="a list"),
        pytest.param({"checkpoint.json": "{}"}, Reason.INVALID_CONFIG_MAP, "source", id="an empty summary"),
    ],
)
def test_a_bad_config_map_is_refused_with_its_problem(
    data: dict[str, str], reason: Reason, words: str
) -> None:
    refusal = read_config_map(data, BY_MAP)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is reason
    assert words in refusal.message
    assert "ConfigMap tiny" in refusal.message


def test_a_summary_in_a_config_map_is_used_as_it_is() -> None:
    assert read_config_map({"checkpoint.json": SUMMARY.to_json(), "config.json": "{}"}, BY_MAP) == SUMMARY


def test_a_config_json_alone_is_a_summary_without_tensors() -> None:
    summary = read_config_map({"config.json": '{"model_type": "llama"}'}, BY_MAP)
    assert isinstance(summary, CheckpointSummary)
    assert (summary.config, summary.tensors, summary.source) == ({"model_type": "llama"}, (), "hf://org/tiny")


def inspection(phase: str, message: str | None = None, version: int = 1, **status: Any) -> dict[str, Any]:
    item = pod("llama-inspect-1", version, own="llama", role="inspect", phase=phase)
    item["status"] |= {"podIP": "10.0.0.9", **status}
    if message is not None:
        item["status"]["containerStatuses"] = [{"state": {"terminated": {"message": message}}}]
    return item


class Agent:
    def __init__(self, *answers: str | None) -> None:
        self.answers = list(answers)

    async def get(self, pod_ip: str, path: str) -> str:
        answer = self.answers.pop(0)
        if answer is None:
            raise AgentUnavailable("connection refused")
        return answer


def inspected(states: list[dict[str, Any] | None], *answers: str | None) -> CheckpointSummary | Refusal:
    left = list(states)

    def read(query: ModelQuery) -> dict[str, Any] | None:
        return left.pop(0) if len(left) > 1 else left[0]

    return run(inspect_by_pod(Agent(*answers), BY_POD, read))  # type: ignore[arg-type]


def test_the_summary_is_read_once_the_pod_answers() -> None:
    states = [None, inspection("Pending"), inspection("Running")]
    assert inspected(states, None, None, SUMMARY.to_json()) == SUMMARY


@pytest.mark.parametrize(
    ("state", "reason", "words"),
    [
        pytest.param(
            inspection("Failed", json.dumps({"reason": "ModelAccessDenied", "message": "No access."})),
            Reason.MODEL_ACCESS_DENIED,
            "No access.",
            id="the agent's own reason is passed on",
        ),
        pytest.param(
            inspection("Failed", json.dumps({"reason": "ModelFetchFailed", "message": "Odd."})),
            Reason.INSPECTION_FAILED,
            "Odd.",
            id="a general failure becomes a failed inspection",
        ),
        pytest.param(
            inspection("Failed", "Traceback"),
            Reason.INSPECTION_FAILED,
            "no termination message",
            id="no JSON",
        ),
        pytest.param(
            inspection("Failed", reason="DeadlineExceeded"),
            Reason.INSPECTION_FAILED,
            "DeadlineExceeded",
            id="late",
        ),
    ],
)
def test_an_ended_pod_says_why(state: dict[str, Any], reason: Reason, words: str) -> None:
    refusal = inspected([state])
    assert isinstance(refusal, Refusal)
    assert refusal.reason is reason
    assert words in refusal.message


def waiting(reason: str, message: str) -> dict[str, Any]:
    item = inspection("Pending", podIP="")
    item["spec"]["nodeName"] = "n1"
    state = {"waiting": {"reason": reason, "message": message}}
    item["status"]["containerStatuses"] = [{"name": "inspect", "restartCount": 0, "state": state}]
    return item


def unscheduled(message: str) -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return inspection("Pending", podIP="", conditions=[condition])


@pytest.mark.parametrize(
    ("state", "reason", "words"),
    [
        pytest.param(
            waiting("CreateContainerConfigError", 'secret "hub" not found'),
            Reason.SECRET_MISSING,
            'secret "hub" not found',
            id="its Secret is missing",
        ),
        pytest.param(
            waiting("ImagePullBackOff", "Back-off pulling image"),
            Reason.IMAGE_PULL_FAILED,
            "Back-off pulling image",
            id="its image cannot be pulled",
        ),
        pytest.param(
            unscheduled('persistentvolumeclaim "models" not found'),
            Reason.VOLUME_CLAIM_MISSING,
            '"models"',
            id="its claim is missing",
        ),
        pytest.param(
            unscheduled("0/3 nodes are available: 3 Insufficient memory."),
            Reason.UNSCHEDULABLE,
            "3 Insufficient memory",
            id="no node has room for it",
        ),
    ],
)
def test_a_pod_that_cannot_start_says_why_and_is_looked_at_again(
    state: dict[str, Any], reason: Reason, words: str
) -> None:
    refusal = inspected([state])
    assert isinstance(refusal, Refusal)
    assert refusal.reason is reason
    assert words in refusal.message
    assert "llama-inspect-1" in refusal.message
    assert [retry_seconds(reason, failures) for failures in (1, 50)] == [15.0, 15.0]


def test_a_pod_that_starts_normally_is_waited_for() -> None:
    states = [unscheduled(""), waiting("ContainerCreating", ""), inspection("Running")]
    states[0]["status"]["conditions"][0]["reason"] = "SchedulingGated"
    assert inspected(list(states), SUMMARY.to_json()) == SUMMARY


def test_a_container_that_has_ended_before_its_pod_says_why_itself() -> None:
    ended = inspection("Running", json.dumps({"reason": "ModelFetchFailed", "message": "Odd."}))
    refusal = inspected([ended])
    assert isinstance(refusal, Refusal)
    assert (refusal.reason, refusal.message) == (Reason.INSPECTION_FAILED, "Odd.")


def test_an_answer_that_is_no_summary_is_refused() -> None:
    refusal = inspected([inspection("Running")], "{}")
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.INSPECTION_FAILED


def test_another_try_removes_the_ended_pod_and_tells() -> None:
    ended = inspection("Failed", "Traceback")
    server, store, changes = FakeServer(ended), Store(), list[Change]()
    store.observe(POD, ended)

    async def hub(source: str, revision: str | None, token: str | None) -> CheckpointSummary | Refusal:
        raise AssertionError("a pod reads this model")

    async def scenario() -> CheckpointSummary | Refusal:
        def react(change: Change) -> None:
            changes.append(change)
            store.observe(
                POD, {**inspection("Running", version=9), "metadata": {**ended["metadata"], "uid": "2"}}
            )

        agent = Agent(SUMMARY.to_json())
        reader = ModelReader(server, store, agent, hub, react)  # type: ignore[arg-type]
        return await reader(BY_POD)

    assert run(scenario()) == SUMMARY
    assert server.calls == ["delete llama-inspect-1"]
    assert [change.keys for change in changes] == [{KEY}]


def test_the_hub_is_asked_without_a_token() -> None:
    asked: list[tuple[str, str | None, str | None]] = []

    async def hub(source: str, revision: str | None, token: str | None) -> CheckpointSummary | Refusal:
        asked.append((source, revision, token))
        return SUMMARY

    async def scenario() -> CheckpointSummary | Refusal:
        reader = ModelReader(FakeServer(), Store(), Agent(), hub, print)  # type: ignore[arg-type]
        return await reader(ModelQuery(KEY, "1", "hf://org/tiny", "main"))

    assert run(scenario()) == SUMMARY
    assert asked == [("hf://org/tiny", "main", None)]
