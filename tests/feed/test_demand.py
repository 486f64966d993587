from __future__ import annotations

from typing import Any

import pytest

from stowage.feed.demand import Demand, Waiting, keep_places, waiting
from stowage.hardware.inventory import Inventory, build_inventory, pod_usage
from stowage.hardware.node import node_facts
from tests.kube.objects import labels, node, pod


def deployment(replicas: int, gpus: int, **spec: Any) -> dict[str, Any]:
    template = pod("template", gpus=gpus)
    template["spec"] |= {"tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}], **spec}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "llama", "namespace": "default", "labels": labels()},
        "spec": {
            "replicas": replicas,
            "template": {"metadata": {"labels": labels()}, "spec": template["spec"]},
        },
    }


def inventory(
    *pods: dict[str, Any], nodes: tuple[dict[str, Any], ...] = (node("n1"), node("n2"))
) -> Inventory:
    return build_inventory([node_facts(item) for item in nodes], [pod_usage(item) for item in pods])


def free(snapshot: Inventory) -> dict[str, int]:
    return {room.facts.name: room.free_gpus for room in snapshot.nodes}


@pytest.mark.parametrize(
    ("replicas", "pods", "count"),
    [
        pytest.param(3, [], 3, id="nothing is there yet: all wait"),
        pytest.param(3, [pod("a", node="n1", gpus=2)], 2, id="a bound pod waits no more"),
        pytest.param(3, [pod("a", gpus=2)], 3, id="a pending pod still waits"),
        pytest.param(1, [pod("a", node="n1", gpus=2), pod("b", node="n1", gpus=2)], 0, id="more than asked"),
        pytest.param(1, [pod("old", node="n1", gpus=4)], 1, id="a pod of another shape does not count"),
        pytest.param(0, [], 0, id="nothing is asked for"),
    ],
)
def test_how_many_pods_wait(replicas: int, pods: list[dict[str, Any]], count: int) -> None:
    assert len(waiting(Demand.of_deployment(deployment(replicas, 2)), map(pod_usage, pods)).pods) == count


def test_waiting_pods_keep_the_places_that_they_will_take() -> None:
    item = waiting(Demand.of_deployment(deployment(2, 8)), [])
    assert sorted(free(keep_places(inventory(), [item])).values()) == [0, 0]


def test_a_pod_that_fits_nowhere_takes_nothing() -> None:
    item = waiting(Demand.of_deployment(deployment(1, 16)), [])
    assert free(keep_places(inventory(), [item])) == {"n1": 8, "n2": 8}


def test_a_selector_keeps_places_only_where_it_matches() -> None:
    demand = Demand.of_deployment(deployment(1, 4, nodeSelector={"nvidia.com/gpu.product": "NVIDIA-L4"}))
    assert free(keep_places(inventory(), [waiting(demand, [])])) == {"n1": 8, "n2": 8}


def test_a_larger_successor_takes_over_the_room_of_its_leaving_pod() -> None:
    old = pod("old", node="n1", gpus=6)
    only = (node("n1"),)
    snapshot = inventory(old, nodes=only)
    item = waiting(Demand.of_deployment(deployment(1, 8)), [pod_usage(old)])
    assert free(snapshot) == {"n1": 2}
    assert free(keep_places(snapshot, [item])) == {"n1": 0}


def test_room_that_a_leaving_pod_still_holds_is_not_free() -> None:
    old = pod("old", node="n1", gpus=6)
    only = (node("n1"),)
    item = waiting(Demand.of_deployment(deployment(1, 1)), [pod_usage(old)])
    assert free(keep_places(inventory(old, nodes=only), [item])) == {"n1": 2}


def test_places_are_kept_for_one_after_the_other() -> None:
    first = waiting(Demand.of_deployment(deployment(1, 8)), [])
    second = waiting(Demand.of_deployment(deployment(1, 8)), [])
    third = waiting(Demand.of_deployment(deployment(1, 8)), [])
    assert free(keep_places(inventory(), [first, second, third])) == {"n1": 0, "n2": 0}


def test_nobody_waits_nothing_changes() -> None:
    snapshot = inventory()
    assert keep_places(snapshot, [Waiting(())]) == snapshot
