"""Which of the nodes that could take a pod it should take: the tightest place, so that whole nodes stay whole.

Only an order. The scheduler has its own and makes the final choice; this one decides what is counted on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Final, TypeAlias

from stowage.hardware.room import NodeRoom, PodNeeds

_CLIQUE: Final = "nvidia.com/gpu.clique"
_ZONE: Final = "topology.kubernetes.io/zone"

Order: TypeAlias = tuple[bool, bool, bool, int, int, int, str]
"""A sort key of nodes; the smallest is the best place."""


def placement_order(room: NodeRoom, needs: PodNeeds) -> Order:
    """Sort key of nodes that could take a pod: the tightest place first, so that whole nodes stay whole.

    With GPUs: nodes that exist before those of a pool that would have to grow; a node that the pod fills up; then a
    node that is in use already, the fullest first; then the smallest unused node. Without GPUs: the most free
    memory. The name decides the rest.
    """
    missing, memory_bytes = room.facts.pool is not None, room.free.memory_bytes
    if not needs.gpus or needs.gpu_resource is None:
        return (missing, False, False, 0, 0, -memory_bytes, room.facts.name)
    free, total = room.free.count(needs.gpu_resource), room.facts.allocatable.count(needs.gpu_resource)
    return (missing, free != needs.gpus, free >= total, free, total, memory_bytes, room.facts.name)


@dataclass(frozen=True, slots=True)
class Arranged:
    """Nodes that pods of one group may go to, in order of `placement_order`, for pods with any number of GPUs.

    Arranged once, so that each of the many shapes that are tried looks at the few nodes that it would take only.
    Labels and taints have been looked at: what is left to ask is whether there is room. `present` are nodes that exist
    and `missing` those that pools would have to grow by; of both first those in use already, then unused ones, by
    number of free GPUs.
    """

    nodes: tuple[NodeRoom, ...]
    present: tuple[Mapping[int, tuple[NodeRoom, ...]], Mapping[int, tuple[NodeRoom, ...]]]
    missing: tuple[Mapping[int, tuple[NodeRoom, ...]], Mapping[int, tuple[NodeRoom, ...]]]

    def best_first(self, gpus: int) -> Iterator[NodeRoom]:
        """Give the nodes that have so many GPUs free, the one to take first first."""
        for in_use, unused in (self.present, self.missing):
            yield from in_use.get(gpus, ())
            yield from unused.get(gpus, ())
            for free, nodes in chain(in_use.items(), unused.items()):
                if free > gpus:
                    yield from nodes


def arrange(nodes: Iterable[NodeRoom], resource: str) -> Arranged:
    """Arrange nodes by their free devices of one kind."""
    known = tuple(nodes)
    halves: tuple[dict[int, list[NodeRoom]], ...] = ({}, {}, {}, {})
    for node in known:
        free, total = node.free.count(resource), node.facts.allocatable.count(resource)
        if free > 0:
            half = (2 if node.facts.pool is not None else 0) + (free >= total)
            halves[half].setdefault(free, []).append(node)
    in_use, unused, new_in_use, new_unused = (_sorted(half, resource) for half in halves)
    return Arranged(known, (in_use, unused), (new_in_use, new_unused))


def _sorted(nodes: Mapping[int, list[NodeRoom]], resource: str) -> dict[int, tuple[NodeRoom, ...]]:
    def key(node: NodeRoom) -> tuple[int, int, str]:
        return node.facts.allocatable.count(resource), node.free.memory_bytes, node.facts.name

    return {free: tuple(sorted(nodes[free], key=key)) for free in sorted(nodes)}


def spanning_domain(node: NodeRoom) -> str:
    """Name what a replica that spans nodes must not leave: the NVLink fabric where nodes say so, else the zone."""
    labels = node.facts.labels
    return labels.get(_CLIQUE) or labels.get(_ZONE) or ""
