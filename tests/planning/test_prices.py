"""Prices: whose they are, what has none, and what a bad table is told."""

from __future__ import annotations

from typing import Any

import pytest

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.hardware.catalog import catalog, find_gpu
from stowage.hardware.gpu import Gpu
from stowage.planning.plan import PlanRequest, plan
from stowage.planning.prices import Prices, default_prices, read_prices
from tests.hardware.objects import gpu_node
from tests.planning.builders import chosen, inventory_of, llama_8b, make_plan, spec_of

L4, L40S, GB10 = "NVIDIA-L4", "NVIDIA-L40S", "NVIDIA-GB10"


def gpu(name: str) -> Gpu:
    found = find_gpu(name)
    assert found is not None
    return found


def test_every_default_names_a_gpu_of_the_catalog_as_the_catalog_does() -> None:
    prices = default_prices()
    assert set(prices.per_gpu_hour) <= {each.name for each in catalog().gpus}
    assert prices.defaults == frozenset(prices.per_gpu_hour)


def test_stated_prices_win_and_the_others_stay_defaults() -> None:
    prices = read_prices({"perGpuHour": {"l4": 9.5}})
    assert isinstance(prices, Prices)
    assert prices.of(gpu(L4)) == 9.5
    assert L4 not in prices.defaults
    assert L40S in prices.defaults


def test_another_currency_is_not_mixed_with_the_defaults() -> None:
    prices = read_prices({"currency": "EUR", "perGpuHour": {L4: 0.6}})
    assert isinstance(prices, Prices)
    assert (prices.currency, dict(prices.per_gpu_hour), prices.defaults) == ("EUR", {L4: 0.6}, frozenset())


@pytest.mark.parametrize(
    ("document", "reason", "words"),
    [
        pytest.param([], Reason.INVALID_SPEC, "perGpuHour", id="a list"),
        pytest.param({"prices": {}}, Reason.INVALID_SPEC, "perGpuHour", id="no prices"),
        pytest.param(
            {"perGpuHour": {"NVIDIA-H1000": 1}}, Reason.UNKNOWN_GPU, "Did you mean", id="an unknown GPU"
        ),
        pytest.param({"perGpuHour": {L4: "cheap"}}, Reason.INVALID_SPEC, "'cheap'", id="a word"),
        pytest.param({"perGpuHour": {L4: -1}}, Reason.INVALID_SPEC, "-1", id="less than nothing"),
        pytest.param({"perGpuHour": {L4: True}}, Reason.INVALID_SPEC, "True", id="a boolean"),
        pytest.param({"perGpuHour": {L4: float("nan")}}, Reason.INVALID_SPEC, "nan", id="not a number"),
    ],
)
def test_a_bad_table_is_refused_with_the_line(document: Any, reason: Reason, words: str) -> None:
    refusal = read_prices(document)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is reason
    assert words in refusal.sentence


def test_prices_decide_between_gpus() -> None:
    inventory = inventory_of([gpu_node("a", L4, 4), gpu_node("b", L40S, 4)])
    assert chosen(make_plan(llama_8b(), inventory)).gpu_product == L4
    dear = read_prices({"perGpuHour": {L4: 20, L40S: 1}})
    assert isinstance(dear, Prices)
    taken = chosen(plan(PlanRequest(spec_of(), llama_8b(), 2, prices=dear), inventory))
    assert (taken.gpu_product, taken.cost_per_hour, taken.cost_unit, taken.default_price) == (
        L40S,
        2.0,
        "USD",
        False,
    )


def test_a_default_price_is_marked_and_said() -> None:
    taken = chosen(make_plan(llama_8b(), inventory_of([gpu_node("a", L4, 4)])))
    assert taken.default_price
    assert any("default price" in note for note in taken.notes)


def test_without_a_price_costs_are_in_gpu_hours() -> None:
    taken = chosen(
        make_plan(llama_8b(), inventory_of([gpu_node("a", "NVIDIA-GeForce-RTX-5090", 2)]), replicas=2)
    )
    assert (taken.cost_per_hour, taken.cost_unit) == (2.0, "GPU-hours")
    assert taken.cost_per_million_tokens is not None
    assert any("has no price: costs are in GPU-hours" in note for note in taken.notes)


def test_without_any_prices_memory_ranks() -> None:
    inventory = inventory_of([gpu_node("a", L4, 4), gpu_node("b", L40S, 4)])
    request = PlanRequest(spec_of(), llama_8b(), 1, prices=Prices())
    assert chosen(plan(request, inventory)).gpu_product == L4
    assert Prices().rank(gpu(L40S)) == 2 * Prices().rank(gpu(L4))
