"""Where replicas go: never without room, whole nodes left whole, one zone for a replica that spans nodes."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stowage.api.conditions import Reason
from stowage.hardware.best_fit import arrange, placement_order
from stowage.hardware.inventory import Inventory, build_inventory, pod_usage, quota_room
from stowage.hardware.node import node_facts
from stowage.hardware.pool_file import read_pools
from stowage.hardware.reservation import take
from stowage.hardware.resources import Resources
from stowage.hardware.room import PodNeeds, pods_that_fit
from stowage.hardware.taints import GPU_TOLERATION
from stowage.planning.placement import (
    placement_at,
    places,
    places_spanning,
    to_come,
    why_not_spanning,
    why_nowhere,
)
from tests.hardware.objects import gpu_node, pod, quota

GPU = "nvidia.com/gpu"
H100 = "NVIDIA-H100-80GB-HBM3"
GIB = 2**30


def needs(gpus: int, gib: int = 8) -> PodNeeds:
    return PodNeeds(Resources(1000, gib * GIB, 1, {GPU: gpus}), {}, (GPU_TOLERATION,), GPU)


def cluster(*sizes: tuple[int, int], maximum: int = 0, **more: Any) -> Inventory:
    """Nodes n0, n1, … of (GPUs, GPUs in use), and a pool of eight-GPU nodes."""
    nodes = [gpu_node(f"n{index}", H100, total, **more) for index, (total, _) in enumerate(sizes)]
    pods = [
        pod(f"p{index}", {GPU: str(used)}, on=f"n{index}") for index, (_, used) in enumerate(sizes) if used
    ]
    declared = {
        "name": "big",
        "gpu": H100,
        "gpusPerNode": 8,
        "maxNodes": maximum,
        "labels": {"example.com/pool": "big"},
        "cpu": "64",
        "memory": "512Gi",
    }
    return build_inventory(map(node_facts, nodes), map(pod_usage, pods), pools=read_pools([declared]))


@pytest.mark.parametrize(
    ("sizes", "gpus", "count", "expected"),
    [
        pytest.param([(8, 0), (2, 0)], 2, 1, ["n1"], id="the node that it fills"),
        pytest.param([(8, 0), (8, 6)], 2, 1, ["n1"], id="the rest of a node that it fills"),
        pytest.param([(8, 0), (8, 1)], 1, 1, ["n1"], id="a node in use before an unused one"),
        pytest.param([(4, 0), (8, 3)], 2, 1, ["n1"], id="a node in use before a smaller unused one"),
        pytest.param([(8, 0), (4, 0)], 2, 1, ["n1"], id="a small unused node before a large one"),
        pytest.param([(8, 2), (8, 5)], 2, 1, ["n1"], id="the fuller of two nodes in use"),
        pytest.param([(8, 0), (8, 4), (4, 0)], 4, 2, ["n1", "n2"], id="what is filled up, in use first"),
        pytest.param([(8, 0), (8, 0)], 4, 3, ["n0", "n0", "n1"], id="one node is filled before the next"),
        pytest.param([(8, 7), (4, 3)], 2, 1, [], id="nothing is split over nodes"),
        pytest.param([(8, 0)], 4, 5, ["n0", "n0"], id="as many as there is room for"),
        pytest.param([(8, 0)], 8, 0, [], id="none are asked for"),
    ],
)
def test_the_tightest_place_is_taken(
    sizes: list[tuple[int, int]], gpus: int, count: int, expected: list[str]
) -> None:
    inventory = cluster(*sizes)
    assert list(places(needs(gpus), inventory.nodes, (), count)) == expected
    assert list(places(needs(gpus), arrange(inventory.nodes, GPU), (), count)) == expected


def test_room_is_more_than_gpus() -> None:
    inventory = cluster((4, 0), (8, 0), memory="64Gi")
    assert places(needs(1, gib=40), inventory.nodes, (), 4) == ("n0", "n1")


def test_a_quota_counts_like_room() -> None:
    limit = quota_room(quota("q", {f"requests.{GPU}": "5"}))
    assert places(needs(2), cluster((8, 0)).nodes, [limit], 4) == ("n0", "n0")
    assert places_spanning(needs(2), cluster((8, 0), (8, 0), (8, 0)).nodes, [limit], 4, 2) == (("n0", "n1"),)


def test_nodes_that_exist_come_before_nodes_to_come() -> None:
    inventory = cluster((8, 6), maximum=2)
    assert places(needs(2), inventory.nodes, (), 3) == ("n0", "big/new-1", "big/new-1")
    assert places(needs(8), arrange(inventory.nodes, GPU), (), 9) == ("big/new-1", "big/new-2")


@pytest.mark.parametrize(
    ("names", "kind", "new_nodes", "words"),
    [
        pytest.param(("n0", "n0"), "Now", 0, "by label", id="all on nodes that exist"),
        pytest.param(
            ("n0", "big/new-1", "big/new-1"),
            "AfterScaleUp",
            1,
            "by label; counts on pool big to grow by 1 node",
            id="two on one node to come",
        ),
        pytest.param(
            ("big/new-1", "big/new-2"),
            "AfterScaleUp",
            2,
            "by label; counts on pool big to grow by 2 nodes",
            id="two nodes to come",
        ),
        pytest.param((), "Impossible", 0, "by label", id="no place at all"),
    ],
)
def test_a_placement_says_when(names: tuple[str, ...], kind: str, new_nodes: int, words: str) -> None:
    placement = placement_at(names, cluster((8, 0), maximum=2).nodes, "by label")
    assert (placement.kind, placement.new_nodes, placement.evidence) == (kind, new_nodes, words)
    assert placement.node_names == names
    assert placement.pools == ("big",)
    assert to_come(names) == sum(name.startswith("big/") for name in names)


def test_without_a_pool_none_is_named() -> None:
    assert placement_at(("n0",), cluster((8, 0)).nodes, "").pools == ()


def zoned(*nodes: tuple[str, str, int]) -> Inventory:
    """Eight-GPU nodes of (name, zone, GPUs in use)."""
    made = [
        gpu_node(name, H100, 8, labels={"topology.kubernetes.io/zone": zone} if zone else {})
        for name, zone, _ in nodes
    ]
    pods = [pod(f"p-{name}", {GPU: str(used)}, on=name) for name, _, used in nodes if used]
    return build_inventory(map(node_facts, made), map(pod_usage, pods))


@pytest.mark.parametrize(
    ("nodes", "per_replica", "count", "expected"),
    [
        pytest.param([("a", "", 0), ("b", "", 0)], 2, 1, [("a", "b")], id="two nodes without zones"),
        pytest.param([("a", "x", 0), ("b", "y", 0)], 2, 1, [], id="never over two zones"),
        pytest.param(
            [("a", "x", 0), ("b", "y", 0), ("c", "y", 0), ("d", "x", 0), ("e", "x", 0)],
            2,
            1,
            [("b", "c")],
            id="the zone with least room to spare",
        ),
        pytest.param(
            [("a", "x", 0), ("b", "x", 0), ("c", "x", 4)], 2, 2, [("a", "b")], id="only whole replicas"
        ),
        pytest.param(
            [(name, "x", 0) for name in "abcd"],
            2,
            3,
            [("a", "b"), ("c", "d")],
            id="as many as there is room for",
        ),
    ],
)
def test_a_replica_spans_distinct_nodes_of_one_zone(
    nodes: list[tuple[str, str, int]], per_replica: int, count: int, expected: list[tuple[str, ...]]
) -> None:
    inventory = zoned(*nodes)
    assert list(places_spanning(needs(8), inventory.nodes, (), count, per_replica)) == expected
    assert list(places_spanning(needs(8), arrange(inventory.nodes, GPU), (), count, per_replica)) == expected


def test_an_nvlink_fabric_counts_before_a_zone() -> None:
    labels = {"topology.kubernetes.io/zone": "x"}
    nodes = [
        gpu_node(name, H100, 8, labels={**labels, "nvidia.com/gpu.clique": clique})
        for name, clique in (("a", "f.1"), ("b", "f.2"), ("c", "f.2"))
    ]
    inventory = build_inventory(map(node_facts, nodes), [])
    assert places_spanning(needs(8), inventory.nodes, (), 2, 2) == (("b", "c"),)


def test_too_few_nodes_in_one_zone_is_said() -> None:
    inventory = zoned(("a", "x", 0), ("b", "y", 0), ("c", "y", 1))
    refusal = why_not_spanning(needs(8), inventory.nodes, (), 2, "8x H100")
    assert refusal.reason is Reason.INSUFFICIENT_GPUS
    assert refusal.message == "No 2 nodes of one zone or NVLink fabric have room for 8x H100; 1 (x) at most."
    full = why_not_spanning(needs(8), zoned(("a", "x", 1)).nodes, (), 2, "tp8 pp2")
    assert "a has 7 of 8 GPUs free" in full.message
    limit = quota_room(quota("q", {f"requests.{GPU}": "8"}))
    assert why_not_spanning(needs(8), inventory.nodes, [limit], 2, "x").reason is Reason.QUOTA_EXCEEDED


def test_a_refusal_names_the_closest_nodes_and_each_pool_once() -> None:
    inventory = cluster((8, 4), (8, 0), (2, 0), (4, 0), (4, 0), maximum=3)
    refusal = why_nowhere(needs(16), inventory.nodes, (), "16x H100 on one node")
    assert refusal.message.startswith("No node has room for 16x H100 on one node: ")
    assert refusal.message.count("a new node of pool big has 8 GPUs in all") == 1
    assert refusal.message.endswith("; and 3 more nodes.")


@st.composite
def clusters(draw: st.DrawFn) -> Inventory:
    sizes = []
    for _ in range(draw(st.integers(1, 4))):
        total = draw(st.sampled_from([1, 2, 4, 8]))
        sizes.append((total, draw(st.integers(0, total))))
    memory = draw(st.sampled_from(["20Gi", "40Gi", "256Gi"]))
    return cluster(*sizes, maximum=draw(st.integers(0, 1)), memory=memory)


def most_replicas(inventory: Inventory, asked: PodNeeds, count: int) -> int:
    """Try every way of dealing replicas out to nodes."""
    rooms = [pods_that_fit(node, asked) for node in inventory.nodes]
    return max(sum(dealt) for dealt in product(*[range(room + 1) for room in rooms]) if sum(dealt) <= count)


@settings(max_examples=200, deadline=None)
@given(clusters(), st.integers(1, 8), st.integers(0, 6), st.randoms())
def test_as_many_replicas_are_placed_as_any_way_could_place(
    inventory: Inventory, gpus: int, count: int, random: Any
) -> None:
    asked = needs(gpus)
    names = places(asked, inventory.nodes, (), count)
    assert len(names) == most_replicas(inventory, asked, count)
    for name, taken in Counter(names).items():
        room = next(node for node in inventory.nodes if node.facts.name == name)
        assert taken <= pods_that_fit(room, asked)
    shuffled = list(inventory.nodes)
    random.shuffle(shuffled)
    assert places(asked, shuffled, (), count) == names
    assert places(asked, arrange(shuffled, GPU), (), count) == names


@settings(max_examples=150, deadline=None)
@given(clusters(), st.integers(1, 8), st.integers(1, 6))
def test_filling_in_order_is_taking_the_tightest_place_again_and_again(
    inventory: Inventory, gpus: int, count: int
) -> None:
    asked, rooms = needs(gpus), list(inventory.nodes)
    names: list[str] = []
    one = pod_usage(pod("r", {GPU: str(gpus), "cpu": "1", "memory": "8Gi"}))
    while len(names) < count and (able := [room for room in rooms if pods_that_fit(room, asked)]):
        best = min(able, key=lambda room: placement_order(room, asked))
        names.append(best.facts.name)
        rooms[rooms.index(best)] = take(best, one, 1)
    assert places(asked, inventory.nodes, (), count) == tuple(names)


@settings(max_examples=150, deadline=None)
@given(clusters(), st.integers(1, 7), st.integers(1, 6))
def test_a_whole_node_is_broken_only_when_nothing_smaller_has_room(
    inventory: Inventory, gpus: int, count: int
) -> None:
    asked = needs(gpus)
    taken = Counter(places(asked, inventory.nodes, (), count))
    broken = [
        node.total_gpus
        for node in inventory.nodes
        if taken[node.facts.name] and node.free_gpus == node.total_gpus > gpus
    ]
    for node in inventory.nodes:
        in_use = node.facts.pool is None and node.free_gpus < node.total_gpus
        smaller = node.facts.pool is None and node.total_gpus < max(broken, default=0)
        if broken and (in_use or smaller):
            assert taken[node.facts.name] == pods_that_fit(node, asked)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 2)), min_size=1, max_size=6),
    st.integers(2, 3),
    st.integers(1, 4),
)
def test_spanning_replicas_are_as_many_as_the_zones_hold(
    nodes: list[tuple[str, int]], per_replica: int, count: int
) -> None:
    inventory = zoned(*[(f"n{index}", zone, 4 * used) for index, (zone, used) in enumerate(nodes)])
    found = places_spanning(needs(8), inventory.nodes, (), count, per_replica)
    free = Counter(zone for zone, used in nodes if used == 0)
    assert len(found) == min(count, sum(number // per_replica for number in free.values()))
    flat = [name for names in found for name in names]
    assert len(flat) == len(set(flat)) == per_replica * len(found)
    for names in found:
        assert len({nodes[int(name[1:])][0] for name in names}) == 1
