"""Every way to be refused, with its reason, the sentence and what would help."""

from __future__ import annotations

from typing import Any

import pytest

from stowage.api.conditions import Reason
from stowage.model.profile import ModelProfile
from tests.hardware.objects import gpu_node, node, pod, quota
from tests.planning.builders import (
    inventory_of,
    llama_1b,
    llama_8b,
    llama_70b,
    llama_config,
    make_plan,
    mixed_nodes,
    profile_of,
    refused,
)

L4, A100 = "NVIDIA-L4", "NVIDIA-A100-SXM4-80GB"
GPU = "nvidia.com/gpu"
CORDONED = [gpu_node("n", A100, 8, unschedulable=True)]
TAINTED = [gpu_node("n", A100, 8, taints=[{"key": "dedicated", "value": "web", "effect": "NoSchedule"}])]
SHARED = [gpu_node("t4", "Tesla-T4-SHARED", 1, extended={GPU: 4})]


@pytest.mark.parametrize(
    ("nodes", "wish", "reason", "words"),
    [
        pytest.param([node("cpu")], {}, Reason.NO_GPUS, "no node with GPUs", id="a cluster without GPUs"),
        pytest.param(
            [node("n", extended={GPU: 4})],
            {},
            Reason.UNKNOWN_GPU,
            "Node n offers 4",
            id="only unlabelled GPUs",
        ),
        pytest.param(SHARED, {}, Reason.UNSUPPORTED_GPU, "shares its GPUs", id="only time-sliced GPUs"),
        pytest.param(
            [
                node(
                    "m",
                    labels={"amd.com/gpu.product-name": "AMD_Instinct_MI300X_OAM"},
                    extended={"amd.com/gpu": 8},
                )
            ],
            {},
            Reason.UNSUPPORTED_GPU,
            "made by AMD",
            id="only AMD GPUs",
        ),
        pytest.param(
            [gpu_node("v", "Tesla-V100-SXM2-32GB", 8)],
            {},
            Reason.UNSUPPORTED_GPU,
            "7.0",
            id="GPUs that are too old",
        ),
        pytest.param(
            mixed_nodes(),
            {"hardware": {"gpus": ["NVIDIA-H200"]}},
            Reason.NO_MATCHING_GPU,
            "the cluster has NVIDIA-A100-SXM4-80GB, NVIDIA-H100",
            id="a known GPU that the cluster lacks",
        ),
        pytest.param(
            mixed_nodes(),
            {"hardware": {"gpus": ["NVIDIA-H1000"]}},
            Reason.UNKNOWN_GPU,
            'add to operator/stowage/hardware/catalog.toml: [[gpu]] name = "NVIDIA-H1000"',
            id="a GPU name that nobody knows",
        ),
        pytest.param(
            mixed_nodes(),
            {"hardware": {"nodeSelector": {"zone": "mars"}}},
            Reason.NO_MATCHING_GPU,
            "zone=mars",
            id="a node selector that matches nothing",
        ),
        pytest.param(
            [node("n", extended={GPU: 4})],
            {"hardware": {"nodeSelector": {"zone": "mars"}}},
            Reason.NO_MATCHING_GPU,
            "zone=mars",
            id="a node selector that matches nothing, beside GPUs that cannot be used",
        ),
        pytest.param(
            [*mixed_nodes(), node("odd", labels={"zone": "mars"}, extended={GPU: 4})],
            {"hardware": {"nodeSelector": {"zone": "mars"}}},
            Reason.UNKNOWN_GPU,
            "Node odd offers 4",
            id="a node selector that leaves only GPUs that cannot be used",
        ),
        pytest.param(
            CORDONED, {}, Reason.NODES_UNSCHEDULABLE, "n is cordoned", id="the only node is cordoned"
        ),
        pytest.param(
            [gpu_node("n", A100, 8, ready=False)],
            {},
            Reason.NODES_UNSCHEDULABLE,
            "not ready",
            id="it is not ready",
        ),
        pytest.param(
            TAINTED, {}, Reason.NODES_UNSCHEDULABLE, "taint dedicated=web:NoSchedule", id="it is tainted"
        ),
        pytest.param(
            [gpu_node("n", A100, 8, cpu="1")],
            {},
            Reason.INSUFFICIENT_NODE_RESOURCES,
            "lacks CPU",
            id="no CPU",
        ),
        pytest.param(
            [gpu_node("n", A100, 8, memory="2Gi")],
            {},
            Reason.INSUFFICIENT_NODE_RESOURCES,
            "lacks memory (2.0 of 8.0 GiB free)",
            id="no host memory",
        ),
        pytest.param(
            [gpu_node("n", A100, 8, pods=0)],
            {},
            Reason.INSUFFICIENT_NODE_RESOURCES,
            "pod slot",
            id="no pod slot",
        ),
        pytest.param(
            mixed_nodes(),
            {"parallelism": {"tensor": 16}},
            Reason.INSUFFICIENT_GPUS,
            "8 GPUs in all",
            id="more GPUs than any node has",
        ),
        pytest.param(
            mixed_nodes(),
            {"parallelism": {"tensor": 3}},
            Reason.INVALID_PARALLELISM,
            "does not divide",
            id="a TP that does not divide the heads",
        ),
        pytest.param(
            mixed_nodes(),
            {"workload": {"maxModelLen": 200_000}},
            Reason.CONTEXT_TOO_LONG,
            "at most 131,072",
            id="more context than the model has",
        ),
        pytest.param(
            mixed_nodes(),
            {
                "workload": {
                    "maxModelLen": 4096,
                    "promptTokens": {"mean": 4000},
                    "outputTokens": {"mean": 500},
                }
            },
            Reason.CONTEXT_TOO_LONG,
            "add up to 4,500",
            id="requests that are longer than the context",
        ),
        pytest.param(
            [gpu_node("n", L4, 1)],
            {"workload": {"maxModelLen": 65536}},
            Reason.CONTEXT_TOO_LONG,
            "tp1 on NVIDIA-L4",
            id="a context that does not fit the card",
        ),
        pytest.param(
            [gpu_node("n", L4, 1)],
            {"workload": {"concurrencyPerReplica": 50, "promptTokens": {"mean": 2000}}},
            Reason.CONCURRENCY_TOO_HIGH,
            "asks for 50",
            id="more requests at once than the cache holds",
        ),
        pytest.param(
            [gpu_node("n", A100, 1)],
            {"engine": {"kvCacheMemory": "1Gi"}, "workload": {"maxModelLen": 32768}},
            Reason.CONTEXT_TOO_LONG,
            "",
            id="a pinned cache that is too small for the pinned context",
        ),
        pytest.param(
            mixed_nodes(),
            {"engine": {"version": "0.5.0"}},
            Reason.UNSUPPORTED_ENGINE_VERSION,
            "0.5.0",
            id="an engine that is too old",
        ),
        pytest.param(
            [gpu_node("n", A100, 8)],
            {"hardware": {"maxGPUs": 1}, "parallelism": {"tensor": 2}},
            Reason.GPU_LIMIT_REACHED,
            "spec.hardware.maxGPUs",
            id="more GPUs than the user allows",
        ),
    ],
)
def test_what_cannot_be_is_refused(
    nodes: list[dict[str, Any]], wish: dict[str, Any], reason: Reason, words: str
) -> None:
    refusal = refused(make_plan(llama_8b(), inventory_of(nodes), **wish))
    assert refusal.reason is reason
    assert words in refusal.sentence


@pytest.mark.parametrize(
    ("pods", "words"),
    [
        pytest.param(
            [pod("x", {GPU: "4"}, on="n", namespace="ml")], "4 held by namespace ml", id="a foreign pod"
        ),
        pytest.param(
            [pod("x", {GPU: "4"}, on="n", owner="qwen")], "4 held by default/qwen", id="one of ours"
        ),
    ],
)
def test_taken_gpus_are_named_with_their_holder(pods: list[dict[str, Any]], words: str) -> None:
    refusal = refused(make_plan(llama_8b(), inventory_of([gpu_node("n", L4, 4)], pods)))
    assert refusal.reason is Reason.INSUFFICIENT_GPUS
    assert "n has 0 of 4 GPUs free" in refusal.message
    assert words in refusal.message


def test_gpus_promised_to_an_older_deployment_are_its() -> None:
    waiting = pod(
        "w", owner="first",
        spec={
            "containers": [{"name": "c", "resources": {"requests": {GPU: "1"}}}],
            "tolerations": [{"key": GPU, "operator": "Exists"}],
        },
    )  # fmt: skip
    refusal = refused(make_plan(llama_8b(), inventory_of([gpu_node("n", L4, 1)], [waiting])))
    assert refusal.reason is Reason.GPUS_GRANTED_ELSEWHERE
    assert "default/first" in refusal.message


@pytest.mark.parametrize(
    ("hard", "words"),
    [
        pytest.param({f"requests.{GPU}": "0"}, f"0 of requests.{GPU}", id="no GPUs"),
        pytest.param({"requests.memory": "4Gi"}, "4.0 GiB of requests.memory", id="too little memory"),
        pytest.param({"requests.cpu": "500m"}, "0.5 cores of requests.cpu", id="too little CPU"),
        pytest.param({"pods": "0"}, "0 of pods", id="no pods"),
    ],
)
def test_a_quota_that_is_too_small_is_named(hard: dict[str, str], words: str) -> None:
    refusal = refused(make_plan(llama_8b(), inventory_of(mixed_nodes(), quotas=[quota("team", hard)])))
    assert refusal.reason is Reason.QUOTA_EXCEEDED
    assert "ResourceQuota team" in refusal.message
    assert words in refusal.message


def test_a_quota_limits_the_replicas_that_are_placed() -> None:
    limited = quota("team", {f"requests.{GPU}": "3"}, {f"requests.{GPU}": "1"})
    result = make_plan(llama_8b(), inventory_of([gpu_node("n", L4, 4)], quotas=[limited]), replicas=4)
    assert result.plan is not None
    assert len(result.plan.placement.node_names) == 2


def test_a_toleration_opens_a_tainted_node() -> None:
    tolerations = [{"key": "dedicated", "operator": "Equal", "value": "web", "effect": "NoSchedule"}]
    result = make_plan(llama_8b(), inventory_of(TAINTED), hardware={"tolerations": tolerations})
    assert result.plan is not None
    assert result.plan.tolerations[1].key == "dedicated"


def test_70b_on_l4_says_what_is_missing_and_what_would_fit() -> None:
    result = make_plan(llama_70b(), inventory_of([gpu_node("n", L4, 4)]))
    refusal = refused(result)
    assert refusal.reason is Reason.INSUFFICIENT_MEMORY
    assert "tp4 on NVIDIA-L4" in refusal.message
    assert "are missing" in refusal.message
    assert result.would_fit[0].startswith("8x NVIDIA-L4 on one node (the largest node has 4")
    assert "2x NVIDIA-A100-SXM4-80GB on one node" in result.would_fit
    assert [each.candidate for each in result.rejections] == [f"tp{size} on NVIDIA-L4" for size in (1, 2, 4)]


@pytest.mark.parametrize(
    ("profile", "nodes"),
    [
        pytest.param(llama_70b(), [gpu_node("n", L4, 4)], id="70B on L4"),
        pytest.param(llama_8b(), [gpu_node("n", "NVIDIA-GeForce-RTX-3070", 1)], id="8B on 8 GB"),
        pytest.param(llama_8b(), [node("cpu")], id="no GPUs at all"),
    ],
)
def test_what_is_said_to_fit_does_fit(profile: ModelProfile, nodes: list[dict[str, Any]]) -> None:
    suggestions = make_plan(profile, inventory_of(nodes)).would_fit
    assert suggestions
    for words in suggestions:
        if "lossy" in words:
            continue
        count, _, rest = words.partition("x ")
        product = rest.split(" on one node")[0]
        result = make_plan(profile, inventory_of([gpu_node("new", product, int(count))]))
        assert result.plan is not None, words


def test_a_smaller_context_that_would_fit_is_named_and_does_fit() -> None:
    inventory = inventory_of([gpu_node("n", L4, 1)])
    result = make_plan(llama_8b(), inventory, workload={"maxModelLen": 100_000})
    words = result.would_fit[0]
    assert words.startswith("spec.workload.maxModelLen ≤ ")
    length = int(words.split("≤ ")[1].split(" ")[0].replace(",", ""))
    assert make_plan(llama_8b(), inventory, workload={"maxModelLen": length}).plan is not None


def test_a_lower_concurrency_that_would_fit_is_named_and_does_fit() -> None:
    inventory = inventory_of([gpu_node("n", L4, 1)])
    load = {"concurrencyPerReplica": 90, "promptTokens": {"mean": 2000}}
    words = next(
        text for text in make_plan(llama_8b(), inventory, workload=load).would_fit if "concurrency" in text
    )
    count = int(words.split("≤ ")[1].split(" ")[0])
    assert (
        make_plan(llama_8b(), inventory, workload={**load, "concurrencyPerReplica": count}).plan is not None
    )


def test_heads_that_cannot_be_split_are_not_even_tried() -> None:
    phi4 = profile_of(llama_config(hidden_size=5120, num_attention_heads=40, num_key_value_heads=10))
    result = make_plan(phi4, inventory_of(mixed_nodes()))
    named = [each.candidate for each in result.rejections] + [each.candidate for each in result.alternatives]
    tried = {name.split(" ")[0] for name in named}
    assert "tp2" in tried
    assert not {"tp3", "tp4", "tp8"} & tried


def test_nodes_that_cannot_be_used_are_rejected_by_name_beside_a_plan() -> None:
    nodes = [*mixed_nodes(), *SHARED, node("bare", extended={GPU: 2})]
    result = make_plan(llama_1b(), inventory_of(nodes))
    assert result.plan is not None
    assert {each.candidate for each in result.rejections} >= {"node t4", "node bare"}
