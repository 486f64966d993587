"""Which shape is chosen, and that a platform engineer would agree."""

from __future__ import annotations

from typing import Any

import pytest

from stowage.model.profile import ModelProfile
from stowage.planning.plan import PlanRequest, plan
from tests.hardware.objects import gpu_node, pod
from tests.model.support import published
from tests.planning.builders import (
    chosen,
    inventory_of,
    llama_1b,
    llama_8b,
    llama_70b,
    make_plan,
    mixed_nodes,
    spec_of,
)

H100, A100, L40S, L4 = "NVIDIA-H100-80GB-HBM3", "NVIDIA-A100-SXM4-80GB", "NVIDIA-L40S", "NVIDIA-L4"


@pytest.mark.parametrize(
    ("profile", "wish", "product", "gpus"),
    [
        pytest.param(
            llama_8b(), {}, L4, 1, id="8B without wishes goes to the smallest card that holds 32k tokens"
        ),
        pytest.param(llama_1b(), {}, L4, 1, id="1B does not take more than one small card"),
        pytest.param(
            llama_70b(), {}, A100, 2, id="70B takes two A100, and leaves the H100 to who needs them"
        ),
        pytest.param(
            llama_8b(),
            {"workload": {"maxModelLen": 131072}},
            L4,
            2,
            id="8B with full context needs two small cards, which cost less than a larger one",
        ),
        pytest.param(
            llama_8b(),
            {"workload": {"concurrencyPerReplica": 64, "promptTokens": {"mean": 6000}}},
            A100,
            1,
            id="8B with 64 long requests at once needs 48 GiB of KV cache",
        ),
        pytest.param(
            llama_70b(),
            {"hardware": {"gpus": ["h100"]}, "parallelism": {"tensor": 4}},
            H100,
            4,
            id="a GPU may be named as people say it",
        ),
        pytest.param(llama_8b(), {"parallelism": {"tensor": 2}}, L4, 2, id="a pinned TP is kept"),
        pytest.param(
            llama_8b(),
            {"hardware": {"nodeSelector": {"kubernetes.io/hostname": "h100"}}},
            H100,
            1,
            id="a node selector decides",
        ),
        pytest.param(
            llama_70b(),
            {"workload": {"maxModelLen": 131072}},
            A100,
            4,
            id="70B with full context takes four A100",
        ),
    ],
)
def test_the_cheapest_sufficient_shape_is_taken(
    profile: ModelProfile, wish: dict[str, Any], product: str, gpus: int
) -> None:
    plan = chosen(make_plan(profile, inventory_of(mixed_nodes()), **wish))
    assert (plan.gpu_product, plan.gpus_per_replica) == (product, gpus)
    assert plan.settings.tensor_parallel_size == gpus
    assert plan.ledger.verdict == "Fits"
    assert plan.placement.kind == "Now"
    assert plan.requests.count("nvidia.com/gpu") == gpus
    assert plan.shm_bytes == gpus * 2 * 2**30


def test_context_is_enlarged_to_what_fits_and_said() -> None:
    inventory = inventory_of(mixed_nodes())
    small = chosen(make_plan(llama_8b(), inventory))
    assert 32768 <= small.settings.max_model_len < 131072
    assert small.settings.max_model_len % 1024 == 0
    assert any("of the model's 131,072: what fits" in note for note in small.notes)
    large = chosen(make_plan(llama_8b(), inventory, hardware={"gpus": [A100]}))
    assert large.settings.max_model_len == 131072


def test_a_pinned_context_is_not_enlarged() -> None:
    plan = chosen(make_plan(llama_8b(), inventory_of(mixed_nodes()), workload={"maxModelLen": 8192}))
    assert plan.settings.max_model_len == 8192


def test_sequences_run_at_once_are_those_that_the_cache_holds() -> None:
    plan = chosen(make_plan(llama_8b(), inventory_of([gpu_node("n", H100, 1)])))
    seqs = plan.settings.max_num_seqs
    assert plan.settings.max_num_batched_tokens == 8192
    assert seqs * 512 <= plan.ledger.kv_tokens < (seqs + 16) * 512
    assert any(note.startswith("max_num_seqs 1,024 →") for note in plan.notes)


def test_stated_lengths_decide_how_many_run_at_once() -> None:
    load = {"promptTokens": {"mean": 3000}, "outputTokens": {"mean": 1000}}
    plan = chosen(make_plan(llama_8b(), inventory_of([gpu_node("n", H100, 1)]), workload=load))
    seqs = plan.settings.max_num_seqs
    assert seqs * 4000 <= plan.ledger.kv_tokens < (seqs + 8) * 4016


def test_batch_limits_are_lowered_for_memory_and_said() -> None:
    plan = chosen(make_plan(llama_8b(), inventory_of([gpu_node("n", L4, 1)])))
    assert plan.settings.max_num_seqs < 256
    assert any(note.startswith("max_num_seqs 256 →") for note in plan.notes)


def test_pinned_batch_limits_are_kept() -> None:
    engine = {
        "maxNumSeqs": 48,
        "maxNumBatchedTokens": 1536,
        "gpuMemoryUtilization": 0.85,
        "enforceEager": True,
    }
    plan = chosen(make_plan(llama_8b(), inventory_of(mixed_nodes()), engine=engine))
    settings = plan.settings
    assert (settings.max_num_seqs, settings.max_num_batched_tokens) == (48, 1536)
    assert settings.gpu_memory_utilization == 0.85
    assert settings.enforce_eager
    assert plan.ledger.cuda_graph_bytes == 0


def test_a_pinned_kv_cache_is_passed_on_to_the_byte() -> None:
    plan = chosen(
        make_plan(llama_8b(), inventory_of([gpu_node("n", A100, 1)]), engine={"kvCacheMemory": "20Gi"})
    )
    assert plan.settings.kv_cache_memory_bytes == 20 * 2**30
    assert plan.ledger.kv_tokens == 20 * 2**30 // 131072


def test_stated_concurrency_is_served() -> None:
    workload = {"concurrencyPerReplica": 24, "promptTokens": {"mean": 3000}, "outputTokens": {"mean": 500}}
    plan = chosen(make_plan(llama_8b(), inventory_of(mixed_nodes()), workload=workload))
    assert plan.concurrency_served >= 24
    assert plan.request_tokens == 3500
    assert plan.settings.max_num_seqs >= 24


def test_long_stated_requests_raise_the_context_that_is_aimed_at() -> None:
    workload = {"promptTokens": {"mean": 30000, "p95": 60000}, "outputTokens": {"mean": 1000, "p95": 2000}}
    plan = chosen(make_plan(llama_8b(), inventory_of(mixed_nodes()), workload=workload))
    assert plan.settings.max_model_len >= 62000


def test_less_is_aimed_at_where_nothing_holds_the_default_and_said() -> None:
    nodes = [gpu_node("n", "NVIDIA-GeForce-RTX-4080", 2)]
    plan = chosen(make_plan(llama_8b(), inventory_of(nodes)))
    assert plan.gpus_per_replica == 2
    assert 8192 <= plan.settings.max_model_len < 131072
    single = chosen(make_plan(llama_8b(), inventory_of([gpu_node("n", L4, 1)]), engine={"maxNumSeqs": 256}))
    assert single.settings.max_model_len < 32768
    assert any("that are aimed at by default; sized for 16,384" in note for note in single.notes)


def test_the_place_may_decide_for_the_next_best_shape() -> None:
    full = pod("x", {"nvidia.com/gpu": "4"}, on="l4")
    plan = chosen(make_plan(llama_8b(), inventory_of(mixed_nodes(), [full])))
    assert plan.gpu_product == L40S


def test_a_shape_that_can_place_all_replicas_is_preferred() -> None:
    plan = chosen(make_plan(llama_8b(), inventory_of(mixed_nodes()), replicas=6))
    assert plan.gpu_product == L40S
    assert len(plan.placement.node_names) == 6


def test_fewer_places_than_replicas_are_planned_and_said() -> None:
    plan = chosen(make_plan(llama_8b(), inventory_of([gpu_node("n", L4, 4)]), replicas=9))
    assert plan.placement.node_names == ("n",) * 4
    assert "9 replicas are asked for and 4 have a place now." in plan.notes


def test_small_nodes_are_filled_before_whole_large_ones() -> None:
    nodes = [gpu_node("big", L4, 8), gpu_node("small", L4, 2), gpu_node("used", L4, 8)]
    taken = pod("x", {"nvidia.com/gpu": "7"}, on="used")
    plan = chosen(make_plan(llama_8b(), inventory_of(nodes, [taken]), replicas=4))
    assert plan.placement.node_names == ("used", "small", "small", "big")


def test_bfloat16_on_an_old_card_needs_the_users_word() -> None:
    inventory = inventory_of([gpu_node("n", "Tesla-T4", 4)])
    refused = make_plan(llama_1b(), inventory)
    assert refused.plan is None
    assert refused.rejections[0].reason == "UnsupportedDtype"
    plan = chosen(make_plan(llama_1b(), inventory, hardware={"gpus": ["Tesla-T4"]}))
    assert plan.settings.dtype == "float16"
    assert plan.precision == "fp16"
    assert any("runs as float16" in note for note in plan.notes)


def test_the_least_memory_of_a_group_is_budgeted_on() -> None:
    nodes = [gpu_node("a", A100, 1), gpu_node("b", A100, 1, labels={"nvidia.com/gpu.memory": "81000"})]
    plan = chosen(make_plan(llama_8b(), inventory_of(nodes)))
    assert plan.ledger.total_bytes < 79 * 2**30


def test_the_node_selector_reaches_exactly_the_planned_gpus() -> None:
    plan = chosen(
        make_plan(
            llama_8b(),
            inventory_of(mixed_nodes()),
            hardware={"nodeSelector": {"kubernetes.io/hostname": "l4"}},
        )
    )
    assert plan.node_selector == {"nvidia.com/gpu.product": L4, "kubernetes.io/hostname": "l4"}


def test_stated_requests_win_over_derived_ones() -> None:
    runtime = {"resources": {"requests": {"cpu": "7", "memory": "20Gi"}, "limits": {"memory": "24Gi"}}}
    plan = chosen(make_plan(llama_8b(), inventory_of(mixed_nodes()), runtime=runtime))
    assert (plan.requests.cpu_millicores, plan.requests.memory_bytes) == (7000, 20 * 2**30)


def test_a_limit_below_the_derived_request_lowers_it() -> None:
    runtime = {"resources": {"limits": {"memory": "6Gi"}}}
    plan = chosen(make_plan(llama_8b(), inventory_of(mixed_nodes()), runtime=runtime))
    assert plan.requests.memory_bytes == 6 * 2**30


def test_the_operators_default_engine_is_planned_for_unless_the_spec_names_one() -> None:
    inventory = inventory_of(mixed_nodes())
    asked = PlanRequest(spec_of(), llama_8b(), 1, default_engine_version="0.29.0")
    assert chosen(plan(asked, inventory)).engine_version == "0.29.0"
    named = PlanRequest(spec_of(engine={"version": "0.28.0"}), llama_8b(), 1, default_engine_version="0.29.0")
    assert chosen(plan(named, inventory)).engine_version == "0.28.0"


@pytest.mark.parametrize(
    ("release", "kv_dtype"),
    [pytest.param("0.28.0", "fp8", id="to start at all"), pytest.param("0.32.0", "auto", id="not otherwise")],
)
def test_a_format_that_a_model_cannot_do_without_is_stated(release: str, kv_dtype: str) -> None:
    profile = published("deepseek-ai--DeepSeek-V4-Flash")
    inventory = inventory_of([gpu_node("n", "NVIDIA-B200", 2)])
    plan = chosen(make_plan(profile, inventory, engine={"version": release}))
    assert plan.settings.kv_cache_dtype == kv_dtype
