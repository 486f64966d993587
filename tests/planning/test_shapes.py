"""Which shapes are tried: every legal split, pins kept, experts spread where there are any, and several nodes."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from stowage.api.conditions import Reason
from stowage.model.profile import ModelProfile
from stowage.planning.groups import gpu_groups
from stowage.planning.placement import place_replicas
from stowage.planning.search.candidate import candidates
from tests.hardware.objects import gpu_node
from tests.model.support import config_of
from tests.planning.builders import (
    chosen,
    inventory_of,
    llama_1b,
    llama_8b,
    llama_70b,
    llama_config,
    make_plan,
    profile_of,
    refused,
    spec_of,
)

L4, H100 = "NVIDIA-L4", "NVIDIA-H100-80GB-HBM3"


@cache
def mixtral() -> ModelProfile:
    return profile_of(config_of("mistralai--Mixtral-8x7B-v0.1"), "mistralai/Mixtral-8x7B")


def shapes(profile: ModelProfile, sizes: list[int], **parts: Any) -> list[str]:
    nodes = [gpu_node(f"n{index}", H100, size) for index, size in enumerate(sizes)]
    spec = spec_of(**parts)
    found = candidates(gpu_groups(inventory_of(nodes), spec), profile, spec)
    return [str(each).replace(f" on {H100}", "") for each in found]


@pytest.mark.parametrize(
    ("sizes", "parts", "expected"),
    [
        pytest.param([1], {}, ["tp1"], id="one GPU"),
        pytest.param([2], {}, ["tp1", "tp1 pp2", "tp2"], id="two GPUs share layers or follow each other"),
        pytest.param([3], {}, ["tp1", "tp1 pp2", "tp1 pp3", "tp2"], id="three GPUs leave no odd rest"),
        pytest.param([2], {"parallelism": {"pipeline": 2}}, ["tp1 pp2"], id="pinned stages"),
        pytest.param([2], {"parallelism": {"tensor": 2}}, ["tp2"], id="a pinned split"),
        pytest.param([2], {"parallelism": {"data": 2}}, ["tp1 dp2"], id="pinned data-parallel ranks"),
        pytest.param(
            [2, 2],
            {"parallelism": {"tensor": 2}},
            ["tp2", "tp2 pp2 over 2 nodes"],
            id="two nodes follow each other",
        ),
        pytest.param([4], {"parallelism": {"tensor": 16}}, ["tp16"], id="a pin that no node has GPUs for"),
    ],
)
def test_a_dense_model_is_split_in_every_legal_way(
    sizes: list[int], parts: dict[str, Any], expected: list[str]
) -> None:
    assert sorted(shapes(llama_8b(), sizes, **parts)) == sorted(expected)


def test_eight_gpus_are_used_by_powers_of_two() -> None:
    found = shapes(llama_8b(), [8])
    assert {"tp8", "tp4 pp2", "tp2 pp4", "tp1 pp8", "tp4", "tp2 pp2"} <= set(found)
    assert not any("tp3" in name or "pp3" in name or "dp" in name for name in found)


def test_experts_are_split_or_spread_and_attention_may_be_repeated() -> None:
    found = set(shapes(mixtral(), [8]))
    assert {"tp8", "tp8 ep", "tp1 dp8 ep", "tp2 dp4 ep", "tp4 dp2"} <= found
    assert "tp1 ep" not in found
    assert all(
        name.endswith("ep") for name in shapes(mixtral(), [8], parallelism={"expertParallel": "Enabled"})
    )
    assert not any(
        "ep" in name for name in shapes(mixtral(), [8], parallelism={"expertParallel": "Disabled"})
    )


def test_a_model_without_pipeline_support_is_not_cut_into_stages() -> None:
    whole = replace(llama_8b(), supports_pipeline=False)
    assert not any("pp" in name for name in shapes(whole, [4]))
    assert any("pp" in name for name in shapes(llama_8b(), [4]))


def test_expert_parallelism_of_a_dense_model_is_refused() -> None:
    refusal = refused(
        make_plan(
            llama_8b(), inventory_of([gpu_node("n", H100, 2)]), parallelism={"expertParallel": "Enabled"}
        )
    )
    assert refusal.reason is Reason.INVALID_PARALLELISM
    assert "no experts" in refusal.message


def test_pinned_parallelism_reaches_the_settings() -> None:
    inventory = inventory_of([gpu_node("n", H100, 8)])
    parallel = {"tensor": 2, "data": 2, "expertParallel": "Enabled"}
    plan = chosen(make_plan(mixtral(), inventory, parallelism=parallel))
    assert (plan.settings.tensor_parallel_size, plan.data_parallel_size, plan.expert_parallel) == (2, 2, True)
    assert plan.gpus_per_replica == plan.settings.world_size == 4
    staged = chosen(make_plan(llama_8b(), inventory, parallelism={"pipeline": 4}))
    assert (staged.settings.pipeline_parallel_size, staged.gpus_per_replica) == (4, 4)


def test_data_parallel_ranks_share_the_requests() -> None:
    load = {"concurrencyPerReplica": 64, "promptTokens": {"mean": 2000}, "outputTokens": {"mean": 500}}
    inventory = inventory_of([gpu_node("n", H100, 4)])
    plan = chosen(make_plan(mixtral(), inventory, parallelism={"tensor": 2, "data": 2}, workload=load))
    assert plan.settings.max_num_seqs >= 32
    assert plan.concurrency_served >= 64
    assert plan.ledger.kv_tokens >= 32 * 2500


def test_a_replica_over_two_nodes_is_planned_and_not_served() -> None:
    nodes = [gpu_node("a", L4, 4), gpu_node("b", L4, 4)]
    result = make_plan(llama_70b(), inventory_of(nodes), workload={"maxModelLen": 8192})
    refusal = refused(result)
    assert refusal.reason is Reason.NOT_SUPPORTED
    assert "Only a replica over 2 nodes fits (8x NVIDIA-L4)" in refusal.message
    assert result.multi_node is not None
    assert result.multi_node.nodes_per_replica == 2
    assert result.multi_node.placement.node_names == ("a", "b")
    assert place_replicas(result.multi_node, inventory_of(nodes), 1) == ("a",)


def test_where_several_nodes_are_better_the_best_on_one_is_served() -> None:
    nodes = [gpu_node("a", L4, 4), gpu_node("b", L4, 4), gpu_node("h", "NVIDIA-H200", 2)]
    result = make_plan(llama_70b(), inventory_of(nodes), workload={"maxModelLen": 8192})
    plan = chosen(result)
    assert (plan.gpu_product, plan.nodes_per_replica) == ("NVIDIA-H200", 1)
    assert result.multi_node is not None
    assert any("over 2 nodes would be better" in note and "NotSupported" in note for note in plan.notes)


def test_heads_that_only_stages_divide_are_cut_into_stages() -> None:
    odd = profile_of(llama_config(num_attention_heads=33, num_key_value_heads=11, hidden_size=33 * 128))
    plan = chosen(
        make_plan(
            odd, inventory_of([gpu_node("n", "NVIDIA-GeForce-RTX-4080", 2)]), workload={"maxModelLen": 2048}
        )
    )
    assert (plan.settings.tensor_parallel_size, plan.settings.pipeline_parallel_size) == (1, 2)


def test_small_models_stay_on_one_gpu() -> None:
    assert chosen(make_plan(llama_1b(), inventory_of([gpu_node("n", H100, 8)]))).gpus_per_replica == 1
