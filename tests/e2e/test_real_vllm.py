"""The whole path on the real engine: vLLM's CPU build serves a tiny Llama, and the prediction holds to the token."""

from __future__ import annotations

import os

import pytest

from e2e.tinymodel import TinyModel
from tests.e2e.workspace import Workspace

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        "STOWAGE_VLLM_ENV" not in os.environ,
        reason="STOWAGE_VLLM_ENV names no environment of vLLM: `make test` makes one and sets it",
    ),
]

START_SECONDS = 600.0
KV_CACHE_MIB = 256


def test_real_vllm_is_sized_launched_asked_measured_scaled_and_removed(workspace: Workspace) -> None:
    manifest = workspace.manifest(
        workload={"maxModelLen": 1024}, engine={"kvCacheMemory": f"{KV_CACHE_MIB}Mi", "maxNumSeqs": 4}
    )
    manifest["spec"]["hardware"] = {"class": "CPU"}
    workspace.apply(manifest)
    workspace.wait_ready(seconds=START_SECONDS)
    (pod,) = workspace.pods()
    assert pod["spec"]["containers"][0]["image"].startswith("vllm/vllm-openai-cpu:")

    answer = workspace.ask(tokens=8)
    assert answer["usage"]["completion_tokens"] == 8
    engine = workspace.wait("the engine's figures", lambda: workspace.status().get("engine")) or {}
    assert (engine["kind"], engine["version"]) == ("vllm", "0.32.0")
    assert engine["predicted"]["kvTokens"] == (KV_CACHE_MIB << 20) // TinyModel().kv_bytes_per_token
    assert engine["measured"]["kvTokens"] == engine["predicted"]["kvTokens"]

    workspace.kubectl("scale", "llmd/llm", "--replicas=2")
    workspace.wait("two replicas", lambda: workspace.status().get("readyReplicas") == 2, START_SECONDS)
    assert pod["metadata"]["uid"] in workspace.pod_uids()
    workspace.wait_ready()

    workspace.kubectl("delete", "llmd", "llm", "--wait=false")
    workspace.wait_gone(seconds=180.0)
