from __future__ import annotations

from typing import Any

import pytest

from stowage.feed.demand import Demand, LivePod, Waiting, keep_places, keep_quota, waiting
from stowage.hardware.inventory import Inventory, QuotaRoom, build_inventory, pod_usage
from stowage.hardware.node import node_facts
from tests.kube.objects import labels, node, pod, template_annotation


def deployment(
    replicas: int, gpus: int, *, template: str = "1", surge: int | str = 0, **spec: Any
) -> dict[str, Any]:
    """A Deployment of ours whose pod template has the hash `template`."""
    made = pod("template", gpus=gpus)
    made["spec"] |= {"tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}], **spec}
    metadata = {"labels": labels(), "annotations": template_annotation(template)}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "llama", "namespace": "default", "labels": labels()},
        "spec": {
            "replicas": replicas,
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": surge, "maxUnavailable": 0 if surge else 1},
            },
            "template": {"metadata": metadata, "spec": made["spec"]},
        },
    }


def live(name: str, *, node: str | None = "n1", gpus: int = 2, template: str = "1", **more: Any) -> LivePod:
    """A server pod of ours."""
    item = pod(name, node=node, gpus=gpus, own="llama", template=template, **more)
    return LivePod(item, pod_usage(item))


def inventory(
    *pods: dict[str, Any], nodes: tuple[dict[str, Any], ...] = (node("n1"), node("n2"))
) -> Inventory:
    return build_inventory([node_facts(item) for item in nodes], [pod_usage(item) for item in pods])


def free(snapshot: Inventory) -> dict[str, int]:
    return {room.facts.name: room.free_gpus for room in snapshot.nodes}


GOING = "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("asked", "pods", "count"),
    [
        pytest.param(deployment(3, 2), [], 3, id="nothing is there yet: all wait"),
        pytest.param(deployment(3, 2), [live("a")], 2, id="a bound pod waits no more"),
        pytest.param(deployment(3, 2), [live("a", node=None)], 3, id="a pending pod still waits"),
        pytest.param(deployment(1, 2), [live("a"), live("b")], 0, id="more than asked"),
        pytest.param(
            deployment(1, 2), [live("old", template="0")], 1, id="a pod of another template does not count"
        ),
        pytest.param(
            deployment(1, 2), [live("a", gpus=3)], 0, id="admission may change what a pod of ours requests"
        ),
        pytest.param(
            deployment(1, 2),
            [live("a", deletionTimestamp=GOING)],
            1,
            id="a pod that is being deleted does not count",
        ),
        pytest.param(deployment(1, 2), [live("a", phase="Failed")], 1, id="a pod that has ended is none"),
        pytest.param(
            deployment(1, 2, surge=1), [live("old", template="0")], 2, id="the surge pod waits as well"
        ),
        pytest.param(
            deployment(2, 2, surge=1),
            [live("old", template="0"), live("other", template="0"), live("new")],
            2,
            id="a surge pod that is bound waits no more",
        ),
        pytest.param(
            deployment(4, 2, surge="25%"),
            [live("old", template="0"), live("new")],
            4,
            id="a surge in percent is rounded up",
        ),
        pytest.param(deployment(2, 2, surge=1), [live("a")], 1, id="no surge without an older template"),
        pytest.param(deployment(0, 2), [], 0, id="nothing is asked for"),
    ],
)
def test_how_many_pods_wait(asked: dict[str, Any], pods: list[LivePod], count: int) -> None:
    assert len(waiting(Demand.of_deployment(asked), pods).pods) == count


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
    old = live("old", gpus=6, template="0")
    snapshot = inventory(dict(old.raw), nodes=(node("n1"),))
    item = waiting(Demand.of_deployment(deployment(1, 8)), [old])
    assert free(snapshot) == {"n1": 2}
    assert free(keep_places(snapshot, [item])) == {"n1": 0}


def test_room_that_a_leaving_pod_still_holds_is_not_free() -> None:
    old = live("old", gpus=6, template="0")
    item = waiting(Demand.of_deployment(deployment(1, 1)), [old])
    assert free(keep_places(inventory(dict(old.raw), nodes=(node("n1"),)), [item])) == {"n1": 2}


def test_a_surge_pod_keeps_a_place_beside_the_pod_that_it_replaces() -> None:
    old = live("old", gpus=4, template="0")
    item = waiting(Demand.of_deployment(deployment(1, 4, surge=1)), [old])
    assert free(keep_places(inventory(dict(old.raw), nodes=(node("n1"),)), [item])) == {"n1": 0}


def test_places_are_kept_for_one_after_the_other() -> None:
    first = waiting(Demand.of_deployment(deployment(1, 8)), [])
    second = waiting(Demand.of_deployment(deployment(1, 8)), [])
    third = waiting(Demand.of_deployment(deployment(1, 8)), [])
    assert free(keep_places(inventory(), [first, second, third])) == {"n1": 0, "n2": 0}


def test_nobody_waits_nothing_changes() -> None:
    snapshot = inventory()
    assert keep_places(snapshot, [Waiting(())]) == snapshot


def quota(gpus: int, pods: int = 100) -> QuotaRoom:
    return QuotaRoom("default", "q", {"requests.nvidia.com/gpu": gpus, "pods": pods})


@pytest.mark.parametrize(
    ("asked", "pods", "left"),
    [
        pytest.param(deployment(2, 2), [], 4, id="what is still to be made is taken off"),
        pytest.param(
            deployment(2, 2), [live("a", node=None)], 6, id="a pending pod is counted as used already"
        ),
        pytest.param(deployment(2, 2), [live("a"), live("b", node=None)], 8, id="all are made"),
        pytest.param(
            deployment(1, 2), [live("old", template="0")], 8, id="a successor takes over what its pod leaves"
        ),
        pytest.param(
            deployment(1, 2),
            [live("old", gpus=4, template="0")],
            8,
            id="what a leaving pod holds is still used",
        ),
        pytest.param(
            deployment(1, 2, surge=1), [live("old", template="0")], 6, id="a surge pod needs quota of its own"
        ),
    ],
)
def test_quota_that_others_will_use_is_not_offered(
    asked: dict[str, Any], pods: list[LivePod], left: int
) -> None:
    item = waiting(Demand.of_deployment(asked), pods)
    (room,) = keep_quota([quota(8)], [item])
    assert room.room["requests.nvidia.com/gpu"] == left


def test_quota_of_another_namespace_is_not_touched() -> None:
    item = waiting(Demand.of_deployment(deployment(2, 2)), [])
    elsewhere = QuotaRoom("elsewhere", "q", {"requests.nvidia.com/gpu": 8})
    assert keep_quota([elsewhere], [item]) == (elsewhere,)
