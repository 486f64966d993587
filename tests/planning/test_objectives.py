"""Objectives, rates and priorities: what they decide, and what is said where they cannot be met."""

from __future__ import annotations

from typing import Any

import pytest

from stowage.api.conditions import Reason
from stowage.planning.plan import Plan
from tests.hardware.objects import gpu_node
from tests.planning.builders import (
    chosen,
    inventory_of,
    llama_8b,
    llama_70b,
    make_plan,
    mixed_nodes,
    refused,
)

L4, L40S, A100, H100 = "NVIDIA-L4", "NVIDIA-L40S", "NVIDIA-A100-SXM4-80GB", "NVIDIA-H100-80GB-HBM3"
LENGTHS = {"promptTokens": {"mean": 2000}, "outputTokens": {"mean": 200}}
BUSY = {**LENGTHS, "concurrencyPerReplica": 16}


def planned(**parts: Any) -> Plan:
    return chosen(make_plan(llama_8b(), inventory_of(mixed_nodes()), **parts))


def tail(plan: Plan) -> tuple[float, float]:
    assert plan.forecast is not None
    return plan.forecast.ttft_p95_seconds, plan.forecast.tpot_p95_seconds


def test_without_objectives_the_cheapest_is_taken_and_its_speed_is_said() -> None:
    plan = planned(workload=BUSY)
    assert plan.gpu_product == L4
    assert plan.forecast is not None
    assert plan.forecast.bottleneck.sentence
    assert plan.traffic is not None
    assert (plan.traffic.prompt_tokens, plan.traffic.output_tokens, plan.traffic.concurrency) == (
        2000,
        200,
        16,
    )


@pytest.mark.parametrize("tpot", ["100ms", "30ms", "15ms", "10ms"])
def test_tpot_is_met_and_costs_what_it_costs(tpot: str) -> None:
    free, asked = planned(workload=BUSY), planned(workload=BUSY, objectives={"tpot": tpot})
    assert asked.shortfall == () or tail(asked)[1] < 1.1 * float(tpot.removesuffix("ms")) / 1000
    assert (asked.cost_per_hour or 0) >= (free.cost_per_hour or 0)


def test_a_tighter_objective_never_costs_less() -> None:
    costs = [
        planned(workload=BUSY, objectives={"tpot": f"{milliseconds}ms"}).cost_per_hour or 0
        for milliseconds in (200, 60, 30, 15, 10)
    ]
    assert costs == sorted(costs)
    assert costs[0] < costs[-1]


def test_tpot_may_take_a_smaller_budget_of_tokens_per_step() -> None:
    nodes = inventory_of([gpu_node("n", H100, 1)])
    load = {**LENGTHS, "concurrencyPerReplica": 32}
    free = chosen(make_plan(llama_8b(), nodes, workload=load))
    assert free.forecast is not None
    wanted = free.forecast.tpot_p95_seconds * 0.9
    held = chosen(make_plan(llama_8b(), nodes, workload=load, objectives={"tpot": f"{wanted * 1000:.2f}ms"}))
    assert held.settings.max_num_batched_tokens < free.settings.max_num_batched_tokens
    assert held.settings.max_num_seqs >= 32


def test_more_sequences_than_tpot_allows_are_not_run_at_once() -> None:
    nodes = inventory_of([gpu_node("n", H100, 1)])
    load = {**LENGTHS, "concurrencyPerReplica": 8}
    held = chosen(make_plan(llama_8b(), nodes, workload=load, objectives={"tpot": "14ms"}))
    free = chosen(make_plan(llama_8b(), nodes, workload=load))
    assert 8 <= held.settings.max_num_seqs < free.settings.max_num_seqs


def test_latency_takes_the_fastest_whatever_it_costs() -> None:
    cheap, fast = planned(workload=BUSY), planned(workload=BUSY, objectives={"priority": "Latency"})
    assert fast.gpu_product == H100
    assert tail(fast)[1] < tail(cheap)[1] / 4
    assert (fast.cost_per_hour or 0) > (cheap.cost_per_hour or 0)


def test_throughput_takes_the_most_tokens_per_second() -> None:
    cheap = planned(workload=LENGTHS)
    most = planned(workload=LENGTHS, objectives={"priority": "Throughput"})
    assert cheap.forecast is not None
    assert most.forecast is not None
    brought = most.forecast.output_tokens_per_second.central
    assert brought > 5 * cheap.forecast.output_tokens_per_second.central


def test_equal_latency_goes_to_the_cheaper_shape() -> None:
    nodes = inventory_of(
        [gpu_node("a", H100, 1), gpu_node("b", "NVIDIA-H100-PCIe", 1), gpu_node("c", H100, 1)]
    )
    plan = chosen(make_plan(llama_8b(), nodes, workload=BUSY, objectives={"priority": "Latency"}))
    assert (plan.gpu_product, plan.gpus_per_replica) == (H100, 1)


@pytest.mark.parametrize(
    ("objectives", "floor_of"),
    [
        pytest.param({"ttft": "1ms"}, "spec.objectives.ttft is 1 ms", id="a first token at once"),
        pytest.param(
            {"tpot": "0.1ms"}, "spec.objectives.tpot is 0.1 ms", id="a token faster than weights are read"
        ),
        pytest.param({"ttft": "0s"}, "spec.objectives.ttft is 0 ms", id="no time at all"),
    ],
)
def test_an_objective_below_physics_is_refused_with_the_floor(
    objectives: dict[str, str], floor_of: str
) -> None:
    refusal = refused(
        make_plan(llama_8b(), inventory_of(mixed_nodes()), workload=BUSY, objectives=objectives)
    )
    assert refusal.reason is Reason.OBJECTIVES_BELOW_FLOOR
    assert floor_of in refusal.message
    assert "the floor is" in refusal.message
    assert "tp8 on NVIDIA-H100" in refusal.message


def test_an_objective_out_of_reach_is_refused_with_the_closest_shape() -> None:
    nodes = inventory_of([gpu_node("n", L4, 1)])
    refusal = refused(
        make_plan(llama_8b(), nodes, workload=BUSY, objectives={"tpot": "60ms", "ttft": "400ms"})
    )
    assert refusal.reason is Reason.OBJECTIVES_NOT_MET
    assert "the closest is tp1 on NVIDIA-L4" in refusal.message


def test_pins_that_cannot_meet_objectives_are_obeyed_with_the_shortfall() -> None:
    plan = planned(
        workload=BUSY, objectives={"tpot": "1ms"}, hardware={"gpus": [L4]}, parallelism={"tensor": 1}
    )
    assert (plan.gpu_product, plan.settings.tensor_parallel_size) == (L4, 1)
    assert any("spec.objectives.tpot is 1 ms" in note for note in plan.shortfall)
    assert set(plan.shortfall) <= set(plan.notes)


def test_a_rate_decides_how_many_replicas() -> None:
    load = {**LENGTHS, "requestsPerSecond": 40.0}
    plan = planned(workload=load, objectives={"tpot": "50ms", "ttft": "2s"})
    assert plan.replicas > 1
    assert plan.traffic is not None
    assert plan.traffic.requests_per_second == pytest.approx(40.0 / plan.replicas)
    assert any(f"40 requests per second take {plan.replicas} replicas" in note for note in plan.notes)
    assert plan.cost_per_hour is not None
    more = planned(workload={**load, "requestsPerSecond": 80.0}, objectives={"tpot": "50ms", "ttft": "2s"})
    assert (more.cost_per_hour or 0) > plan.cost_per_hour


def test_a_rate_that_one_replica_takes_keeps_the_replicas_that_are_asked_for() -> None:
    load = {**LENGTHS, "requestsPerSecond": 0.1}
    plan = chosen(make_plan(llama_8b(), inventory_of(mixed_nodes()), 2, workload=load))
    assert plan.replicas == 2


def test_more_replicas_than_there_is_room_for_are_said() -> None:
    load = {**LENGTHS, "requestsPerSecond": 30.0}
    plan = chosen(make_plan(llama_8b(), inventory_of([gpu_node("n", L4, 2)]), workload=load))
    assert plan.replicas > len(plan.placement.node_names) > 0
    assert any("a place now" in note for note in plan.notes)


def test_a_rate_above_the_limit_of_gpus_is_refused() -> None:
    load = {**LENGTHS, "requestsPerSecond": 60.0}
    refusal = refused(
        make_plan(llama_8b(), inventory_of([gpu_node("n", L4, 8)]), workload=load, hardware={"maxGPUs": 2})
    )
    assert refusal.reason is Reason.GPU_LIMIT_REACHED
    assert "spec.hardware.maxGPUs leaves" in refusal.message


def test_what_is_assumed_about_the_load_is_said() -> None:
    notes = planned().notes
    assert any(
        "Speed is forecast for prompts of 3,072 and answers of 1,024 tokens and 8 requests" in note
        for note in notes
    )
    stated = planned(workload=BUSY).notes
    assert not any(note.startswith("Speed is forecast") for note in stated)


def test_the_attention_backend_is_named() -> None:
    nodes = [gpu_node("n", H100, 1)]
    assert (
        chosen(make_plan(llama_8b(), inventory_of(nodes))).attention_backend
        == "FLASH_ATTN (FlashAttention 3)"
    )
    assert planned().attention_backend == "FLASH_ATTN (FlashAttention 2)"


def test_long_context_on_a_slow_backend_is_warned_about() -> None:
    nodes = inventory_of([gpu_node("n", "Tesla-T4", 4)])
    hardware = {"gpus": ["Tesla-T4"]}
    long = chosen(make_plan(llama_8b(), nodes, hardware=hardware, workload={"maxModelLen": 65536}))
    assert any(
        "so that long prompts take longer; the context is 65,536 tokens" in note for note in long.notes
    )
    short = chosen(make_plan(llama_8b(), nodes, hardware=hardware, workload={"maxModelLen": 4096}))
    assert not any("long prompts" in note for note in short.notes)


def test_a_cache_format_without_a_backend_is_refused_with_others() -> None:
    refusal = refused(
        make_plan(llama_8b(), inventory_of([gpu_node("n", A100, 1)]), precision={"kvCache": "nvfp4_ds_mla"})
    )
    assert refusal.reason is Reason.UNSUPPORTED_DTYPE
    assert "Use kv_cache_dtype" in refusal.sentence


def test_the_same_question_has_the_same_bytes() -> None:
    first, second = (
        chosen(
            make_plan(llama_70b(), inventory_of(mixed_nodes()), workload=BUSY, objectives={"tpot": "40ms"})
        )
        for _ in range(2)
    )
    assert first.to_json() == second.to_json()
    assert Plan.from_json(first.to_json()) == first


def test_what_a_rate_makes_dearer_is_not_shown_as_cheaper() -> None:
    load = {**LENGTHS, "requestsPerSecond": 20.0}
    result = make_plan(
        llama_8b(), inventory_of(mixed_nodes()), workload=load, objectives={"tpot": "50ms", "ttft": "2s"}
    )
    taken = chosen(result).cost_per_hour or 0
    judged = [each for each in result.alternatives if "misses the objectives" not in each.message]
    assert judged
    assert all(each.cost_per_hour is None or each.cost_per_hour >= taken for each in judged)
