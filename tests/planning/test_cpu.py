"""Hardware class CPU: KV bytes are pinned, memory is requested whole, and it is never chosen silently."""

from __future__ import annotations

from typing import Any

import pytest

from stowage.api.conditions import Reason
from stowage.model.profile import ModelProfile
from tests.hardware.objects import gpu_node, node, pod
from tests.planning.builders import (
    chosen,
    inventory_of,
    llama_1b,
    llama_8b,
    llama_config,
    make_plan,
    mixed_nodes,
    profile_of,
    refused,
)

CPU = {"class": "CPU"}


def tiny() -> ModelProfile:
    return profile_of(
        llama_config(
            hidden_size=256,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=8,
            num_key_value_heads=4,
            head_dim=32,
            vocab_size=257,
            max_position_embeddings=2048,
            rope_scaling=None,
        )
    )


def test_a_tiny_model_gets_a_small_pinned_cache_with_exactly_computable_tokens() -> None:
    plan = chosen(make_plan(tiny(), inventory_of([node("n", cpu="2", memory="8Gi")]), hardware=CPU))
    assert (plan.image_class, plan.gpu_product, plan.gpu_resource, plan.gpus_per_replica) == (
        "CPU",
        None,
        None,
        0,
    )
    assert plan.settings.kv_cache_memory_bytes == 256 * 2**20
    bytes_per_block = 4 * 128 * 2 * 4 * 32 * 2
    assert plan.ledger.kv_tokens == 256 * 2**20 // bytes_per_block * 128
    assert plan.settings.gpu_memory_utilization is None
    assert plan.settings.max_model_len == 2048
    assert plan.settings.enforce_eager
    assert plan.placement.node_names == ("n",)


def test_a_pinned_cache_is_kept_to_the_byte() -> None:
    plan = chosen(
        make_plan(
            tiny(), inventory_of([node("n")]), hardware=CPU, engine={"kvCacheMemory": "1Gi", "maxNumSeqs": 4}
        )
    )
    assert plan.settings.kv_cache_memory_bytes == 2**30
    assert plan.settings.max_num_seqs == 4


def test_memory_for_weights_cache_and_processes_is_requested() -> None:
    plan = chosen(make_plan(llama_1b(), inventory_of([node("n", memory="64Gi")]), hardware=CPU))
    assert plan.requests.memory_bytes == plan.ledger.host_memory_bytes
    kv_bytes = plan.settings.kv_cache_memory_bytes
    assert kv_bytes is not None
    assert plan.requests.memory_bytes > plan.ledger.weights_bytes + kv_bytes + 2**31


def test_the_cache_is_halved_where_no_node_has_room_for_more() -> None:
    roomy = chosen(make_plan(llama_8b(), inventory_of([node("n", memory="64Gi")]), hardware=CPU))
    narrow = chosen(make_plan(llama_8b(), inventory_of([node("n", memory="21Gi")]), hardware=CPU))
    wide, small = roomy.settings.kv_cache_memory_bytes, narrow.settings.kv_cache_memory_bytes
    assert wide is not None
    assert small is not None
    assert small < wide
    assert narrow.settings.max_model_len < roomy.settings.max_model_len


def test_stated_concurrency_enlarges_the_cache() -> None:
    load = {"concurrencyPerReplica": 16, "promptTokens": {"mean": 4000}, "maxModelLen": 8192}
    plan = chosen(
        make_plan(llama_1b(), inventory_of([node("n", memory="64Gi")]), hardware=CPU, workload=load)
    )
    assert plan.concurrency_served >= 16
    assert plan.settings.max_num_seqs == 16


def test_replicas_are_spread_over_nodes() -> None:
    nodes = [node("a", memory="32Gi"), node("b", memory="32Gi")]
    plan = chosen(make_plan(tiny(), inventory_of(nodes), replicas=3, hardware=CPU))
    assert sorted(plan.placement.node_names) == ["a", "a", "b"]


@pytest.mark.parametrize(
    ("nodes", "wish", "reason"),
    [
        pytest.param(
            [gpu_node("g", "NVIDIA-L4", 4)], {}, Reason.NO_CPU_NODES, id="GPU nodes are left to others"
        ),
        pytest.param(
            [node("n")],
            {"nodeSelector": {"zone": "mars"}},
            Reason.NO_CPU_NODES,
            id="a selector that matches nothing",
        ),
        pytest.param([node("n", unschedulable=True)], {}, Reason.NODES_UNSCHEDULABLE, id="a cordoned node"),
        pytest.param([node("n", cpu="500m")], {}, Reason.INSUFFICIENT_NODE_RESOURCES, id="too little CPU"),
        pytest.param(
            [node("n", memory="8Gi")], {}, Reason.INSUFFICIENT_MEMORY, id="a node smaller than the model"
        ),
    ],
)
def test_what_cannot_be_is_refused(nodes: list[dict[str, Any]], wish: dict[str, Any], reason: Reason) -> None:
    refusal = refused(make_plan(llama_8b(), inventory_of(nodes), hardware={**CPU, **wish}))
    assert refusal.reason is reason
    assert refusal.message


def test_memory_that_others_hold_is_not_there() -> None:
    taken = pod("x", {"memory": "60Gi"}, on="n")
    refusal = refused(make_plan(llama_8b(), inventory_of([node("n", memory="64Gi")], [taken]), hardware=CPU))
    assert refusal.reason is Reason.INSUFFICIENT_NODE_RESOURCES
    assert "lacks memory" in refusal.message


def test_a_limit_below_what_the_engine_holds_is_a_conflict() -> None:
    runtime = {"resources": {"limits": {"memory": "1Gi"}}}
    refusal = refused(make_plan(tiny(), inventory_of([node("n")]), hardware=CPU, runtime=runtime))
    assert refusal.reason is Reason.PIN_CONFLICT
    assert "limits.memory is 1Gi" in refusal.message


def test_tensor_parallel_is_refused_there() -> None:
    refusal = refused(make_plan(tiny(), inventory_of([node("n")]), hardware=CPU, parallelism={"tensor": 2}))
    assert refusal.reason is Reason.NOT_SUPPORTED


def test_cpus_are_never_chosen_silently() -> None:
    result = make_plan(tiny(), inventory_of([node("n", cpu="64", memory="512Gi")]))
    assert refused(result).reason is Reason.NO_GPUS
    assert "class: CPU" in refused(result).hint


def test_the_class_works_in_a_mixed_cluster() -> None:
    plan = chosen(make_plan(tiny(), inventory_of(mixed_nodes()), hardware=CPU))
    assert plan.placement.node_names == ("cpu",)


def test_objectives_decide_nothing_on_cpus_and_that_is_said() -> None:
    wish: dict[str, Any] = {"objectives": {"tpot": "50ms"}, "workload": {"requestsPerSecond": 3.0}}
    plan = chosen(
        make_plan(llama_1b(), inventory_of([node("c", cpu="16", memory="64Gi")]), hardware=CPU, **wish)
    )
    assert any(note.startswith("Speed is not forecast on CPUs") for note in plan.notes)
