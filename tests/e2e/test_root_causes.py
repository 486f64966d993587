"""Engines that cannot serve: the true cause stands in the REASON column, from where the cluster hides it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.workspace import Workspace


@pytest.mark.parametrize(
    ("standin", "reason", "words"),
    [
        pytest.param(
            {"fault": "cuda_oom_load"}, "CUDAOutOfMemory", "out of memory", id="no GPU memory for the weights"
        ),
        pytest.param(
            {"fault": "cuda_oom_profile"}, "CUDAOutOfMemory", "out of memory", id="no GPU memory for the work"
        ),
        pytest.param({"fault": "kv_too_small"}, "KVCacheTooSmall", "KV cache", id="no room for one request"),
        pytest.param(
            {"fault": "free_memory"},
            "FreeMemoryBelowUtilization",
            "utilization",
            id="somebody else uses the GPU",
        ),
        pytest.param(
            {"fault": "exit", "exit_code": 3}, "EngineExited", "with code 3", id="an end without a word"
        ),
    ],
)
def test_an_engine_that_cannot_start_says_why(
    workspace: Workspace, standin: dict[str, Any], reason: str, words: str
) -> None:
    workspace.deploy(source=workspace.model(**standin))
    assert words in workspace.wait_condition("Ready", "False", reason)
    assert workspace.condition("Degraded")[:2] == ("True", reason)
    row = workspace.kubectl("get", "llmd", "llm", "--no-headers").split()
    assert row[2:5] == ["False", reason, "0/1"]


def test_an_image_that_cannot_be_pulled_is_named(workspace: Workspace) -> None:
    image = "registry.invalid/vllm:none"
    workspace.deploy(engine={"version": "0.32.0"}, runtime={"image": image})
    assert image in workspace.wait_condition("Ready", "False", "ImagePullFailed")
    assert workspace.condition("Degraded")[:2] == ("True", "ImagePullFailed")


def test_an_engine_that_dies_while_serving_comes_back_and_is_told(workspace: Workspace) -> None:
    workspace.deploy(source=workspace.model(fault="exit_serving", after_seconds=3.0, exit_code=7))
    workspace.wait_condition("Available", "True")
    assert "7" in workspace.wait_condition("Degraded", "True", "EngineExited")
    workspace.wait_condition("Available", "True")
    workspace.wait("a warning", lambda: "Warning" in _events(workspace, "EngineExited"))


def test_a_kv_cache_below_the_plan_is_said_and_serves(workspace: Workspace) -> None:
    workspace.serve(source=workspace.model(kv_tokens=4096))
    assert "4,096" in workspace.wait_condition("Degraded", "True", "KVCacheBelowPlan")
    assert workspace.condition("Ready")[0] == "True"


def test_events_tell_the_story_once(workspace: Workspace) -> None:
    workspace.serve()

    def told() -> list[str]:
        events = workspace.reader.items("events", workspace.namespace)
        return [event["reason"] for event in events if event["regarding"]["kind"] == "LLMDeployment"]

    workspace.wait("the event about serving", lambda: "Serving" in told())
    assert len(told()) == len(set(told())), told()
    assert "Fits" in told()


def _events(workspace: Workspace, reason: str) -> str:
    return workspace.kubectl("get", "events", "--field-selector", f"reason={reason}", "--no-headers")
