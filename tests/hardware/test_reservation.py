"""Places that are kept: as if every pod in turn looked at every node, only faster."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stowage.hardware.best_fit import arrange, placement_order
from stowage.hardware.inventory import Inventory, PodUsage, build_inventory, pod_usage, reserve
from stowage.hardware.node import node_facts
from stowage.hardware.pool_file import read_pools
from stowage.hardware.reservation import take
from stowage.hardware.room import PodNeeds, pods_that_fit
from tests.hardware.objects import gpu_node, node, pod
from tests.hardware.test_pool_file import POOL

GPU = "nvidia.com/gpu"
PRODUCTS = ("NVIDIA-L4", "NVIDIA-H100-80GB-HBM3")
TOLERATION = {"key": GPU, "operator": "Exists"}


@st.composite
def snapshots(draw: st.DrawFn) -> Inventory:
    nodes: list[dict[str, Any]] = []
    pods: list[dict[str, Any]] = []
    for index in range(draw(st.integers(1, 6))):
        name, count = f"n{index}", draw(st.sampled_from([1, 2, 4, 8]))
        if draw(st.integers(0, 5)) == 0:
            nodes.append(node(name, memory=draw(st.sampled_from(["4Gi", "64Gi"]))))
            continue
        more = {
            "memory": draw(st.sampled_from(["8Gi", "256Gi"])),
            "ready": draw(st.integers(0, 4)) > 0,
            "unschedulable": draw(st.integers(0, 6)) == 0,
            "labels": {"zone": draw(st.sampled_from(["a", "b"]))},
        }
        if draw(st.integers(0, 4)) == 0:
            more["taints"] = [{"key": "dedicated", "effect": "NoSchedule"}]
        nodes.append(gpu_node(name, draw(st.sampled_from(PRODUCTS)), count, **more))
        used = draw(st.integers(0, count))
        if used:
            pods.append(pod(f"p{index}", {GPU: str(used), "memory": "3Gi"}, on=name))
    pools = read_pools([{**POOL, "labels": {"zone": "b"}, "maxNodes": draw(st.integers(0, 5))}])
    return build_inventory(map(node_facts, nodes), map(pod_usage, pods), pools=pools)


@st.composite
def waiting_pods(draw: st.DrawFn) -> PodUsage:
    gpus = draw(st.integers(0, 8))
    requests = {"memory": draw(st.sampled_from(["1Gi", "5Gi"])), **({GPU: str(gpus)} if gpus else {})}
    spec: dict[str, Any] = {"containers": [{"name": "c", "resources": {"requests": requests}}]}
    if draw(st.booleans()):
        key, values = draw(st.sampled_from([("zone", ["a", "b"]), ("nvidia.com/gpu.product", PRODUCTS)]))
        spec["nodeSelector"] = {key: draw(st.sampled_from(values))}
    if draw(st.integers(0, 4)):
        spec["tolerations"] = [TOLERATION]
    name = f"w{draw(st.integers(0, 99))}"
    return pod_usage(pod(name, owner=draw(st.sampled_from(["x", "y"])), spec=spec))


def one_by_one(inventory: Inventory, pods: list[PodUsage]) -> Inventory:
    """The plain way: every pod looks at every node."""
    rooms = list(inventory.nodes)
    for each in sorted(pods, key=lambda item: (item.namespace, item.name)):
        needs = PodNeeds(each.requests, each.node_selector, each.tolerations, each.device)
        able = [index for index, room in enumerate(rooms) if pods_that_fit(room, needs)]
        if able:
            index = min(able, key=lambda place: placement_order(rooms[place], needs))
            room = take(rooms[index], each, 1)
            gpus = each.requests.count(GPU)
            promised = {
                **room.promised,
                **({each.holder: room.promised.get(each.holder, 0) + gpus} if gpus else {}),
            }
            rooms[index] = replace(room, promised=promised)
    return replace(inventory, nodes=tuple(rooms))


@settings(max_examples=150, deadline=None)
@given(snapshots(), st.lists(waiting_pods(), max_size=8))
def test_classes_of_nodes_give_what_looking_at_every_node_gives(
    inventory: Inventory, pods: list[PodUsage]
) -> None:
    assert reserve(inventory, pods) == one_by_one(inventory, pods)


@settings(max_examples=100, deadline=None)
@given(snapshots(), st.lists(waiting_pods(), max_size=8))
def test_nothing_is_kept_where_there_is_no_room(inventory: Inventory, pods: list[PodUsage]) -> None:
    for before, after in zip(inventory.nodes, reserve(inventory, pods).nodes, strict=True):
        assert after.free.count(GPU) >= min(0, before.free.count(GPU))
        assert after.free.memory_bytes >= min(0, before.free.memory_bytes)
        assert after.facts is before.facts


@settings(max_examples=100, deadline=None)
@given(snapshots(), st.integers(1, 8))
def test_arranged_nodes_are_in_the_order_of_best_fit(inventory: Inventory, gpus: int) -> None:
    needs = PodNeeds(pod_usage(pod("p", {GPU: str(gpus)})).requests, {}, (), GPU)
    enough = [room for room in inventory.nodes if room.free.count(GPU) >= gpus]
    expected = sorted(enough, key=lambda room: placement_order(room, needs))
    assert list(arrange(inventory.nodes, GPU).best_first(gpus)) == expected
