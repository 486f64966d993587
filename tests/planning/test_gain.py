"""What a new plan would change against the one in force, in percent and in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stowage.planning.plan import Plan
from stowage.planning.search.gain import gain
from tests.hardware.objects import gpu_node
from tests.planning.builders import chosen, inventory_of, llama_8b, make_plan

L4 = chosen(make_plan(llama_8b(), inventory_of([gpu_node("a", "NVIDIA-L4", 1)])))
H100 = chosen(make_plan(llama_8b(), inventory_of([gpu_node("b", "NVIDIA-H100-80GB-HBM3", 1)])))


def test_the_same_plan_brings_nothing() -> None:
    found = gain(L4, L4)
    assert set(found.percents) == {0}
    assert found.words == "no change of what is forecast"


def test_every_figure_is_compared_and_said() -> None:
    found = gain(H100, L4)
    assert (found.cost_percent or 0) < -50
    assert (found.ttft_percent or 0) > 0
    assert (found.tpot_percent or 0) > 0
    assert (found.throughput_percent or 0) < 0
    assert [part.split()[0] for part in found.words.split("; ")[:3]] == ["cost", "TTFT", "TPOT"]
    assert found.words.endswith(f"output tokens/s ({found.throughput_percent:+d} %)")


def test_there_and_back_is_no_change() -> None:
    there, back = gain(H100, L4), gain(L4, H100)
    for one, other in zip(there.percents, back.percents, strict=True):
        assert one is not None
        assert other is not None
        assert (1 + one / 100) * (1 + other / 100) == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize(
    ("old", "costs", "speeds"),
    [
        pytest.param(replace(H100, cost_unit="EUR"), False, True, id="costs in another unit"),
        pytest.param(replace(H100, cost_per_hour=None), False, True, id="a plan without costs"),
        pytest.param(replace(H100, cost_per_hour=0.0), False, True, id="a plan that costs nothing"),
        pytest.param(replace(H100, forecast=None), True, False, id="a plan without a forecast"),
    ],
)
def test_what_one_of_the_two_does_not_say_is_not_compared(old: Plan, costs: bool, speeds: bool) -> None:
    found = gain(old, L4)
    assert (found.cost_percent is not None, "cost" in found.words) == (costs, costs)
    assert (found.tpot_percent is not None, "TPOT" in found.words) == (speeds, speeds)


def test_rates_are_those_of_all_replicas() -> None:
    assert gain(L4, replace(L4, replicas=2)).throughput_percent == 100


@pytest.mark.parametrize(("missed", "words"), [(1, "1 objective met"), (2, "2 objectives met")])
def test_objectives_that_are_met_come_first(missed: int, words: str) -> None:
    found = gain(replace(L4, shortfall=("missed.",) * missed), H100)
    assert found.words.startswith(f"{words} that the plan in force misses; cost ")
