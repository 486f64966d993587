"""A lossy plan on the real API server: its check runs as a Job beside the lossless replicas, and decides.

The engine is the stand-in, which is told how much a lossy format loses; everything else is real. What real vLLM
measures is tested in tests/accuracy.
"""

from __future__ import annotations

import json
from typing import Any

from e2e.tinymodel import TinyModel
from stowage.render import names
from tests.e2e.workspace import Workspace

CHECK_SECONDS = 300.0
# A small model whose KV cache takes as much as that of an 8-billion one: the wish below needs two L4 for it, or one
# with a cache of half the size.
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 32,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 64,
}
WISH = {"maxModelLen": 2048, "concurrencyPerReplica": 100}
PROMPTS = "".join(json.dumps({"prompt": f"Question {number}?"}) + "\n" for number in range(24))


def deploy(workspace: Workspace, prompts: str = PROMPTS, **standin: Any) -> None:
    """An LLMDeployment that allows eight bits, with its prompts."""
    folder = workspace.stack.models / workspace.namespace / "wide"
    TinyModel(**SIZES, extra_config={"standin": standin}).write(folder)
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "questions"},
        "data": {"prompts.jsonl": prompts},
    }
    precision = {
        "policy": "EightBit",
        "accuracy": {"promptsRef": {"configMap": "questions"}, "answerTokens": 8},
    }
    source = f"hf://{workspace.namespace}/wide"
    workspace.apply(config_map, workspace.manifest(source=source, workload=WISH, precision=precision))


def accuracy(workspace: Workspace) -> dict[str, Any]:
    return workspace.status().get("accuracy") or {}


def test_a_lossy_plan_replaces_the_lossless_one_once_its_check_has_passed(workspace: Workspace) -> None:
    deploy(workspace, lossy_nats=0.002)
    workspace.wait_ready()
    assert workspace.status()["plan"]["gpusPerReplica"] == 2
    before = workspace.pod_uids()

    workspace.wait("a verdict", lambda: accuracy(workspace).get("verdict"), CHECK_SECONDS)
    found = accuracy(workspace)
    assert (found["verdict"], found["prompts"], found["engine"]) == ("Pass", 24, "simulated")
    assert 0 < found["likelihood"]["dropPercent"] <= found["likelihood"]["atMostPercent"] <= 1
    workspace.wait(
        "the lossy plan", lambda: workspace.status()["plan"].get("gpusPerReplica") == 1, CHECK_SECONDS
    )
    workspace.wait_ready()
    workspace.wait("the lossless replica to be gone", lambda: not before & workspace.pod_uids())

    (job,) = workspace.reader.items("jobs", workspace.namespace)
    assert job["status"]["succeeded"] == 1
    remembered = workspace.need("deployments")["metadata"]["annotations"][names.ACCURACY_ANNOTATION]
    assert json.loads(remembered)["results"][0]["report"]["engineKind"] == "simulated"
    assert accuracy(workspace)["verdict"] == "Pass"


def test_a_lossy_plan_that_fails_its_check_is_not_taken(workspace: Workspace) -> None:
    deploy(workspace, lossy_nats=0.3)
    workspace.wait_ready()
    before = workspace.pod_uids()

    def failed() -> bool:
        events = workspace.reader.items("events", workspace.namespace)
        return any(event.get("reason") == "AccuracyCheckFailed" for event in events)

    workspace.wait("the failure", failed, CHECK_SECONDS)
    assert workspace.pod_uids() == before
    assert workspace.status()["plan"]["gpusPerReplica"] == 2
    assert workspace.condition("Ready")[0] == "True"


def test_bad_prompts_are_told_and_read_again_once_they_are_mended(workspace: Workspace) -> None:
    deploy(workspace, prompts='{"prompt": 5}\n', lossy_nats=0.002)
    workspace.wait("the reason", lambda: accuracy(workspace).get("reason") == "InvalidPrompts", CHECK_SECONDS)
    assert "line 1: `prompt` is 5" in accuracy(workspace)["message"]
    workspace.wait_ready()
