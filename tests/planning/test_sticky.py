"""A plan in force is kept while it fits, and the sentence says why when it does not."""

from __future__ import annotations

from typing import Any

import pytest

from stowage.api.conditions import Reason
from stowage.planning.plan import PlanRequest
from stowage.planning.sticky import still_fits
from tests.hardware.objects import gpu_node, node, pod
from tests.planning.builders import chosen, inventory_of, llama_8b, llama_70b, make_plan, mixed_nodes, spec_of

L4 = "NVIDIA-L4"
NODES = [gpu_node("n", L4, 4)]


def test_it_is_kept_and_placed_anew() -> None:
    first = chosen(make_plan(llama_8b(), inventory_of(NODES)))
    again = chosen(make_plan(llama_8b(), inventory_of([*mixed_nodes(), *NODES]), 3, in_force=first))
    assert again.digest() == first.digest()
    assert len(again.placement.node_names) == 3


@pytest.mark.parametrize(
    ("nodes", "pods", "wish", "words"),
    [
        pytest.param([gpu_node("m", "NVIDIA-L40S", 8)], [], {}, "no node", id="its nodes are gone"),
        pytest.param(
            NODES, [pod("x", {"nvidia.com/gpu": "4"}, on="n")], {}, "0 of 4 GPUs free", id="others took all"
        ),
        pytest.param(
            [gpu_node("n", L4, 4, unschedulable=True)], [], {}, "cordoned", id="its node is cordoned"
        ),
        pytest.param(
            NODES, [], {"workload": {"maxModelLen": 2048}}, "maxModelLen is 2048", id="another context"
        ),
        pytest.param(NODES, [], {"engine": {"version": "0.29.0"}}, "0.29.0", id="another engine"),
        pytest.param(NODES, [], {"engine": {"kvCacheMemory": "2Gi"}}, "kvCacheMemory", id="a pinned cache"),
        pytest.param(
            NODES, [], {"parallelism": {"tensor": 2}}, "parallelism.tensor is 2", id="another split"
        ),
        pytest.param(
            NODES, [], {"hardware": {"gpus": ["L40S"]}}, "does not allow", id="the GPU is not allowed"
        ),
        pytest.param(NODES, [], {"hardware": {"class": "CPU"}}, "class is CPU", id="another class"),
        pytest.param(
            NODES,
            [],
            {"hardware": {"nodeSelector": {"zone": "a"}}},
            "nodeSelector differs",
            id="another selector",
        ),
        pytest.param(
            NODES,
            [],
            {"workload": {"concurrencyPerReplica": 500}},
            "not 500",
            id="more requests than it serves",
        ),
    ],
)
def test_it_is_given_up_with_a_sentence(
    nodes: list[dict[str, Any]], pods: list[dict[str, Any]], wish: dict[str, Any], words: str
) -> None:
    first = chosen(make_plan(llama_8b(), inventory_of(NODES)))
    refusal = still_fits(first, PlanRequest(spec_of(**wish), llama_8b(), 1), inventory_of(nodes, pods))
    assert refusal is not None
    assert refusal.reason is Reason.PLAN_NO_LONGER_FITS
    assert words.lower() in refusal.message.lower()


def test_another_model_does_not_fit_into_it() -> None:
    first = chosen(make_plan(llama_8b(), inventory_of(NODES)))
    refusal = still_fits(first, PlanRequest(spec_of(), llama_70b(), 1), inventory_of(NODES))
    assert refusal is not None
    assert refusal.reason is Reason.INSUFFICIENT_MEMORY


def test_the_same_wish_on_the_same_cluster_keeps_it() -> None:
    wish: dict[str, Any] = {
        "workload": {"maxModelLen": 8192},
        "engine": {"maxNumSeqs": 32, "kvCacheMemory": "2Gi"},
    }
    first = chosen(make_plan(llama_8b(), inventory_of(NODES), **wish))
    assert still_fits(first, PlanRequest(spec_of(**wish), llama_8b(), 1), inventory_of(NODES)) is None


def test_it_works_on_cpus_too() -> None:
    inventory = inventory_of([node("n", memory="64Gi")])
    first = chosen(make_plan(llama_8b(), inventory, hardware={"class": "CPU"}))
    request = PlanRequest(spec_of(hardware={"class": "CPU"}), llama_8b(), 1)
    assert still_fits(first, request, inventory) is None
    assert still_fits(first, request, inventory_of([node("n", memory="8Gi")])) is not None
