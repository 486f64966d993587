"""A plan in force is kept while it fits; a better one is only shown."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from stowage.api.v1alpha1 import Priority
from stowage.planning.kept import _is_worth_telling
from stowage.planning.plan import Plan, PlanRequest, PlanResult, plan
from stowage.planning.prices import Prices
from stowage.planning.search.judge import Score
from tests.hardware.objects import gpu_node, pod
from tests.planning.builders import chosen, inventory_of, llama_8b, make_plan, spec_of

L4, L40S, A100 = "NVIDIA-L4", "NVIDIA-L40S", "NVIDIA-A100-SXM4-80GB"
OLD = [gpu_node("b", L40S, 2)]
NEW = [gpu_node("a", L4, 2), *OLD]


def replanned(
    old: Plan, nodes: list[dict[str, Any]], pods: list[dict[str, Any]] | None = None, **parts: Any
) -> PlanResult:
    return plan(PlanRequest(spec_of(**parts), llama_8b(), 1, in_force=old), inventory_of(nodes, pods or []))


def in_force(nodes: list[dict[str, Any]] | None = None, **parts: Any) -> Plan:
    return chosen(make_plan(llama_8b(), inventory_of(nodes or OLD), **parts))


def test_a_cheaper_node_that_appears_changes_nothing_and_is_shown() -> None:
    old = in_force()
    result = replanned(old, NEW)
    kept = chosen(result)
    assert kept.digest() == old.digest()
    assert result.better is not None
    assert result.better.gpu_product == L4
    assert any(
        note.startswith("This plan is kept since it still fits; a new one would take 1x NVIDIA-L4")
        for note in kept.notes
    )


def test_without_a_better_one_nothing_is_shown() -> None:
    result = replanned(in_force(), OLD)
    assert chosen(result).digest() == in_force().digest()
    assert result.better is None


@pytest.mark.parametrize(
    ("nodes", "pods", "parts"),
    [
        pytest.param([NEW[0]], [], {}, id="its nodes are gone"),
        pytest.param(NEW, [pod("x", {"nvidia.com/gpu": "2"}, on="b")], {}, id="its place is taken"),
        pytest.param(NEW, [], {"workload": {"maxModelLen": 8192}}, id="another context is pinned"),
        pytest.param(NEW, [], {"engine": {"maxNumSeqs": 12}}, id="another limit is pinned"),
        pytest.param(NEW, [], {"parallelism": {"tensor": 2}}, id="another split is pinned"),
        pytest.param(NEW, [], {"hardware": {"gpus": [L4]}}, id="its GPU is not allowed any more"),
        pytest.param(NEW, [], {"engine": {"version": "0.29.0"}}, id="another release is asked for"),
        pytest.param(
            NEW,
            [],
            {"workload": {"concurrencyPerReplica": 2000}, "hardware": {"gpus": [L4, L40S, A100]}},
            id="more is asked than it holds",
        ),
    ],
)
def test_what_does_not_fit_any_more_is_not_kept(
    nodes: list[dict[str, Any]], pods: list[dict[str, Any]], parts: dict[str, Any]
) -> None:
    old, fresh = in_force(), plan(PlanRequest(spec_of(**parts), llama_8b(), 1), inventory_of(nodes, pods))
    result = replanned(old, nodes, pods, **parts)
    assert result.better is None
    assert (result.plan and result.plan.digest()) == (fresh.plan and fresh.plan.digest())


def test_another_commit_of_the_model_is_not_the_same_plan() -> None:
    old = replace(in_force(), model_revision="d" * 40)
    assert chosen(replanned(old, NEW)).gpu_product == L4


def test_a_plan_in_force_that_misses_objectives_gives_way() -> None:
    load = {"promptTokens": {"mean": 2000}, "outputTokens": {"mean": 200}, "concurrencyPerReplica": 8}
    old = in_force([gpu_node("a", L4, 1)], workload=load)
    nodes = [gpu_node("a", L4, 1), gpu_node("h", "NVIDIA-H100-80GB-HBM3", 1)]
    result = replanned(old, nodes, workload=load, objectives={"tpot": "25ms"})
    assert chosen(result).gpu_product == "NVIDIA-H100-80GB-HBM3"


H100 = "NVIDIA-H100-80GB-HBM3"
LOAD = {"promptTokens": {"mean": 2000}, "outputTokens": {"mean": 200}, "concurrencyPerReplica": 8}


@pytest.mark.parametrize(
    ("l4_price", "told"),
    [
        pytest.param(0.5, True, id="half the price"),
        pytest.param(0.9, True, id="a tenth less"),
        pytest.param(0.91, False, id="less than a tenth"),
        pytest.param(1.0, False, id="the same price, but a smaller card"),
    ],
)
def test_only_what_costs_a_tenth_less_is_told(l4_price: float, told: bool) -> None:
    prices = Prices({L4: l4_price, L40S: 1.0}, "USD", frozenset())
    request = PlanRequest(spec_of(), llama_8b(), 1, prices=prices, in_force=in_force())
    result = plan(request, inventory_of(NEW))
    assert chosen(result).gpu_product == L40S
    assert (result.better is not None) is told


@pytest.mark.parametrize("priority", ["Latency", "Throughput"])
def test_what_the_priority_asks_for_decides_what_is_told(priority: str) -> None:
    parts: dict[str, Any] = {"workload": LOAD, "objectives": {"priority": priority}}
    slow, fast = gpu_node("a", L4, 1), gpu_node("h", H100, 1)
    old = in_force([slow], **parts)
    better = replanned(old, [slow, fast], **parts).better
    assert better is not None
    assert better.gpu_product == H100
    old = in_force([fast], **parts)
    assert replanned(old, [slow, fast], **parts).better is None, "cheaper, and not what is asked for"


def scored(*key: float) -> Score:
    """A score of which only the order matters: doubt, misses, not placed, nodes to come, cost."""
    parts = {
        "key": key,
        "order": (key, ("a", "b")),
        "priority": Priority.COST,
        "forecast": None,
        "hourly": key[4],
    }
    return cast(Score, SimpleNamespace(**parts))


@pytest.mark.parametrize(
    ("new", "old", "told"),
    [
        pytest.param((0, 0, 0, 0, 2), (1, 0, 0, 0, 1), True, id="sure instead of in doubt, at any price"),
        pytest.param((0, 1.2, 0, 0, 2), (0, 1.5, 0, 0, 1), True, id="much closer to the objectives"),
        pytest.param((0, 1.4, 0, 0, 2), (0, 1.5, 0, 0, 1), False, id="hardly closer, and dearer"),
        pytest.param((0, 1.4, 0, 0, 1), (0, 1.5, 0, 0, 2), True, id="hardly closer, and much cheaper"),
        pytest.param((0, 1.4, 0.5, 0, 1), (0, 1.5, 0, 0, 2), False, id="hardly closer, and not all placed"),
        pytest.param((0, 0, 0, 0, 2), (0, 0, 0.5, 0, 1), True, id="all replicas placed instead of half"),
        pytest.param((0, 0, 0, 0, 2), (0, 0, 0, 1, 1), True, id="nodes that exist instead of nodes to come"),
        pytest.param((0, 0, 0, 0, 1), (0, 0, 0, 0, 1), False, id="the same"),
        pytest.param((0, 0, 0, 0, 1.1), (0, 0, 0, 0, 1), False, id="dearer"),
    ],
)
def test_what_is_worth_telling(new: tuple[float, ...], old: tuple[float, ...], told: bool) -> None:
    assert _is_worth_telling(scored(*new), scored(*old)) is told
