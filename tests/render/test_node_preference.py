"""The wish for a node that is no larger than needed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stowage.planning.plan import Plan
from stowage.render.node_preference import GPU_COUNT_LABEL, node_preference
from tests.planning.builders import chosen, inventory_of, llama_8b, make_plan, mixed_nodes


def _plan(**changes: Any) -> Plan:
    return replace(chosen(make_plan(llama_8b(), inventory_of(mixed_nodes()))), **changes)


@pytest.mark.parametrize(
    ("gpus", "sizes"),
    [
        pytest.param(1, ["1", "2", "4", "8", "16"], id="one GPU"),
        pytest.param(4, ["4", "8", "16"], id="four GPUs"),
        pytest.param(6, ["8", "16"], id="a number that nodes do not come in"),
    ],
)
def test_the_smallest_node_that_is_large_enough_weighs_most(gpus: int, sizes: list[str]) -> None:
    preference = node_preference(_plan(gpus_per_replica=gpus))
    assert preference is not None
    terms = preference["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    asked = [term["preference"]["matchExpressions"][0] for term in terms]
    assert [expression["values"] for expression in asked] == [[size] for size in sizes]
    assert {expression["key"] for expression in asked} == {GPU_COUNT_LABEL}
    weights = [term["weight"] for term in terms]
    assert weights == sorted(weights, reverse=True)
    assert all(0 < weight <= 100 for weight in weights)


@pytest.mark.parametrize(
    "resource", [None, "nvidia.com/mig-1g.10gb"], ids=["a CPU replica", "a slice of a GPU"]
)
def test_nothing_is_preferred_where_whole_gpus_are_not_asked_for(resource: str | None) -> None:
    assert node_preference(_plan(gpu_resource=resource)) is None


def test_a_replica_larger_than_any_usual_node_has_no_preference() -> None:
    assert node_preference(_plan(gpus_per_replica=32)) is None
