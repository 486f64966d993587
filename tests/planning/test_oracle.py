"""The search against brute force: nothing that was not looked at to the end would have been better.

One oracle judges every candidate in full and takes the least; another counts costs on its own, from ledgers and
prices alone; a third tries every batch limit.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stowage.api.refusal import Refusal
from stowage.hardware.catalog import find_gpu
from stowage.memory.budget import ledger
from stowage.memory.device import DeviceMemory
from stowage.model.profile import ModelProfile
from stowage.planning.assemble import assemble
from stowage.planning.groups import gpu_groups
from stowage.planning.plan import Plan, PlanRequest, plan
from stowage.planning.prices import default_prices
from stowage.planning.search.gpu import planning_of
from stowage.planning.search.judge import Judge, Score
from stowage.planning.search.lossy import Variant
from stowage.planning.search.stepped import MOST_STEPPED
from tests.hardware.objects import gpu_node
from tests.planning.builders import chosen, inventory_of, llama_1b, llama_8b, make_plan, spec_of
from tests.planning.test_shapes import mixtral

PRODUCTS = ["NVIDIA-L4", "NVIDIA-L40S", "NVIDIA-A100-SXM4-80GB", "NVIDIA-H100-80GB-HBM3"]
FEWEST = 8
LENGTHS = {"promptTokens": {"mean": 1500}, "outputTokens": {"mean": 300}}
profiles = st.sampled_from([llama_1b(), llama_8b(), mixtral()])


@st.composite
def nodes(draw: st.DrawFn) -> list[dict[str, Any]]:
    kinds = draw(st.lists(st.sampled_from(PRODUCTS), min_size=1, max_size=3))
    return [gpu_node(f"n{place}", kind, draw(st.sampled_from([1, 2, 4]))) for place, kind in enumerate(kinds)]


@st.composite
def wishes(draw: st.DrawFn) -> dict[str, Any]:
    load: dict[str, Any] = dict(LENGTHS) if draw(st.booleans()) else {}
    asked = draw(st.sampled_from(["nothing", "concurrency", "rate"]))
    if asked == "concurrency":
        load["concurrencyPerReplica"] = draw(st.sampled_from([1, 8, 40]))
    if asked == "rate":
        load["requestsPerSecond"] = draw(st.sampled_from([0.5, 6.0]))
    objectives: dict[str, Any] = {
        "priority": draw(st.sampled_from(["Cost", "Cost", "Latency", "Throughput"]))
    }
    if draw(st.booleans()):
        objectives["tpot"] = draw(st.sampled_from(["15ms", "40ms", "120ms"]))
    if draw(st.booleans()):
        objectives["ttft"] = draw(st.sampled_from(["300ms", "2s"]))
    return {"workload": load, "objectives": objectives}


def brute_force(profile: ModelProfile, inventory: Any, wish: dict[str, Any]) -> Score | None:
    """Judge every candidate in full at each target, and take the least whose stepped forecast meets what is asked."""
    request = PlanRequest(spec_of(**wish), profile, 1)
    planning = planning_of(request, inventory)
    assert not isinstance(planning, Refusal)
    search = planning.search(Variant(profile), gpu_groups(inventory, request.spec))
    for target in planning.aims:
        scores = [search.judge.score(option, target) for option in search.options if option.nowhere is None]
        found = [score for score in scores if isinstance(score, Score) and score.option.candidate.nodes == 1]
        found.sort(key=lambda score: score.order)
        if found and not found[0].fit.is_tight:
            return stepped(request, search.judge, found)
    return None


def stepped(request: PlanRequest, judge: Judge, scores: list[Score]) -> Score:
    """Step the best few in turn, where the best meets what is asked by the closed form; none is stepped in vain."""
    if scores[0].misses:
        return scores[0]
    tried = []
    for score in [score for score in scores if not score.misses and not score.fit.is_tight][:MOST_STEPPED]:
        forecast = assemble(request, judge, score).forecast
        tried.append((0.0 if forecast is None else judge.speed.misses(forecast), score))
        if not tried[-1][0]:
            break
    return min(tried, key=lambda entry: entry[0])[1]


@settings(max_examples=25, deadline=None)
@given(nodes(), wishes(), profiles)
def test_no_candidate_is_better_than_the_chosen_one(
    cluster: list[dict[str, Any]], wish: dict[str, Any], profile: ModelProfile
) -> None:
    inventory = inventory_of(cluster)
    found, best = make_plan(profile, inventory, **wish).plan, brute_force(profile, inventory, wish)
    if found is None:
        assert best is None or best.misses > 0
        return
    assert best is not None or found.ledger.verdict == "Tight"
    if best is not None:
        shape = best.option.candidate
        assert found.gpu_product == shape.group.gpu.name
        assert (found.settings.tensor_parallel_size, found.settings.pipeline_parallel_size) == (
            shape.tensor_parallel_size,
            shape.pipeline_parallel_size,
        )
        assert (found.data_parallel_size, found.expert_parallel) == (
            shape.data_parallel_size,
            shape.expert_parallel,
        )
        assert found.replicas == best.replicas


def least_hourly(profile: ModelProfile, inventory: Any) -> float | None:
    """Count on ledgers alone: the price of the cheapest GPUs of one node that hold 32,768 tokens without doubt."""
    request = PlanRequest(spec_of(), profile, 1)
    version = request.engine()
    assert not isinstance(version, Refusal)
    shape = chosen(make_plan(profile, inventory_of([gpu_node("x", PRODUCTS[3], 4)]))).settings.shape(0.92)
    costs: list[float] = []
    for node in inventory.nodes:
        gpu = find_gpu(node.facts.gpus.gpu.name)
        assert gpu is not None
        device = DeviceMemory.of_gpu(gpu)
        for tensor in (1, 2, 4):
            for stages in (1, 2, 4):
                if tensor * stages > node.total_gpus:
                    continue
                tried = replace(
                    shape,
                    tensor_parallel_size=tensor,
                    pipeline_parallel_size=stages,
                    max_model_len=32768,
                    max_num_seqs=8,
                    max_num_batched_tokens=512,
                )
                found = ledger(profile, tried, device, version)
                if not isinstance(found, Refusal) and found.verdict == "Fits" and found.kv_tokens >= 32768:
                    costs.append(default_prices().per_gpu_hour[gpu.name] * tensor * stages)
    return min(costs, default=None)


@settings(max_examples=25, deadline=None)
@given(nodes(), st.sampled_from([llama_1b(), llama_8b()]))
def test_nothing_that_holds_the_default_costs_less(
    cluster: list[dict[str, Any]], profile: ModelProfile
) -> None:
    inventory = inventory_of(cluster)
    least = least_hourly(profile, inventory)
    if least is not None:
        assert chosen(make_plan(profile, inventory)).cost_per_hour == pytest.approx(least)


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("mean", [200, 1000, 6000], ids=["short requests", "usual requests", "long requests"])
def test_one_sequence_more_would_be_more_than_the_cache_holds(product: str, mean: int) -> None:
    load = {"promptTokens": {"mean": mean}, "outputTokens": {"mean": mean // 4}, "maxModelLen": 16384}
    found = chosen(make_plan(llama_8b(), inventory_of([gpu_node("n", product, 1)]), workload=load))
    seqs = found.settings.max_num_seqs
    assert seqs == FEWEST or room(found, seqs) >= seqs
    more = seqs + 8
    if more <= 1024:
        assert room(found, more) < more


def room(found: Plan, seqs: int) -> int:
    """Count the requests of the stated length that would run at once with so many sequences; 0 in doubt."""
    gpu, request = find_gpu(found.gpu_product or ""), PlanRequest(spec_of(), llama_8b(), 1)
    version = request.engine()
    assert gpu is not None
    assert not isinstance(version, Refusal)
    device = DeviceMemory.of_gpu(gpu, found.ledger.total_bytes)
    shape = replace(found.settings.shape(0.92), max_num_seqs=seqs)
    entry = ledger(llama_8b(), shape, device, version)
    if isinstance(entry, Refusal) or entry.verdict != "Fits":
        return 0
    blocks = -(-found.request_tokens // entry.block_size)
    return (entry.num_gpu_blocks - 1) // blocks


@settings(max_examples=15, deadline=None)
@given(nodes(), wishes(), profiles)
def test_a_thorough_answer_chooses_the_same(
    cluster: list[dict[str, Any]], wish: dict[str, Any], profile: ModelProfile
) -> None:
    inventory = inventory_of(cluster)
    request = PlanRequest(spec_of(**wish), profile, 1)
    usual, thorough = plan(request, inventory), plan(replace(request, thorough=True), inventory)
    assert usual.plan == thorough.plan
    assert usual.refusal == thorough.refusal
