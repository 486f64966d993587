"""Where the replicas of a shape can go in the snapshot, and why not where they cannot.

Whole replicas, on one node each or on several of one group: the tightest place first, so that eight-GPU nodes stay
whole while a smaller place exists, and nodes that exist before nodes that a pool would have to grow by. Quotas of
the namespace count like room. The scheduler decides in the end; what is promised here is only that a place exists.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from stowage.api.v1alpha1 import LLMDeploymentSpec
from stowage.hardware.best_fit import Arranged, placement_order, spanning_domain
from stowage.hardware.inventory import Inventory, QuotaRoom
from stowage.hardware.pools import pool_of
from stowage.hardware.room import (
    NodeRoom,
    PodNeeds,
    lacks_any,
    pods_that_fit,
    room_for,
)
from stowage.hardware.taints import GPU_TOLERATION, Toleration
from stowage.planning.refused.no_place import why_not_spanning, why_nowhere
from stowage.planning.result import Placement, Plan

__all__ = [
    "growth_words",
    "needs_of",
    "place_replicas",
    "placement_at",
    "places",
    "places_spanning",
    "to_come",
    "tolerations_of",
    "why_not_spanning",
    "why_nowhere",
]


def place_replicas(
    plan: Plan, inventory: Inventory, count: int, *, after_scale_up: bool = True
) -> tuple[str, ...]:
    """Name the nodes that could take up to `count` replicas of a plan, one entry per replica.

    Nodes that do not exist yet count only if the plan names their pool and `after_scale_up` is not switched off.
    """
    pools = plan.placement.pools if after_scale_up else ()
    nodes = [node for node in inventory.nodes if node.facts.pool is None or node.facts.pool in pools]
    if plan.nodes_per_replica == 1:
        return places(needs_of(plan), nodes, inventory.quotas, count)
    spans = places_spanning(needs_of(plan), nodes, inventory.quotas, count, plan.nodes_per_replica)
    return tuple(names[0] for names in spans)


def needs_of(plan: Plan) -> PodNeeds:
    """Give what one replica of a plan asks of a node."""
    return PodNeeds(plan.requests, plan.node_selector, plan.tolerations, plan.gpu_resource)


def placement_at(names: Sequence[str], nodes: Iterable[NodeRoom], evidence: str) -> Placement:
    """Say when replicas with these places among `nodes` can run: at once, after a pool has grown, or never.

    `names` is what `places` found, or the nodes of all replicas that `places_spanning` found, one after the other.
    """
    pools = tuple(sorted({node.facts.pool for node in nodes if node.facts.pool is not None}))
    if not names:
        return Placement("Impossible", (), evidence, pools)
    new_nodes = len({name for name in names if pool_of(name) is not None})
    if not new_nodes:
        return Placement("Now", tuple(names), evidence, pools)
    return Placement("AfterScaleUp", tuple(names), f"{evidence}; {growth_words(names)}", pools, new_nodes)


def growth_words(names: Iterable[str]) -> str:
    """Say which pools places on these nodes count on, as a plan that is kept can say it for ever; "" for none."""
    growth = Counter(pool for name in set(names) if (pool := pool_of(name)) is not None)
    parts = (f"pool {pool} to grow by {_nodes(count)}" for pool, count in sorted(growth.items()))
    return f"counts on {' and '.join(parts)}" if growth else ""


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"


def to_come(names: Iterable[str]) -> int:
    """Count the places that are on nodes which do not exist yet."""
    return sum(pool_of(name) is not None for name in names)


def places(
    needs: PodNeeds, nodes: Iterable[NodeRoom] | Arranged, quotas: Iterable[QuotaRoom], count: int
) -> tuple[str, ...]:
    """Name those of the nodes that could take up to `count` such pods, the tightest place first."""
    left = _within_quotas(needs, quotas, count)
    if not needs.gpus:
        return _spread([(node, room) for node, room in _best_first(needs, nodes) if room], left)
    # Filling one node before the next is what taking the tightest place for each replica anew comes to.
    names: list[str] = []
    if left > 0:
        for node, room in _best_first(needs, nodes):
            names += [node.facts.name] * min(room, left - len(names))
            if len(names) == left:
                break
    return tuple(names)


def places_spanning(
    needs: PodNeeds,
    nodes: Iterable[NodeRoom] | Arranged,
    quotas: Iterable[QuotaRoom],
    count: int,
    nodes_per_replica: int,
) -> tuple[tuple[str, ...], ...]:
    """Name the nodes of up to `count` replicas that take one such pod on each of `nodes_per_replica` nodes.

    All nodes of a replica are in one NVLink fabric where nodes say so, else in one zone. The smallest such domain
    that has room is taken first, so that large ones stay free for what needs them.
    """
    left = _within_quotas(needs, quotas, count * nodes_per_replica) // nodes_per_replica
    domains: dict[str, dict[str, int]] = {}
    for node, room in _best_first(needs, nodes):
        if room:
            domains.setdefault(spanning_domain(node), {})[node.facts.name] = room
    replicas: list[tuple[str, ...]] = []
    while len(replicas) < left:
        able = [
            (_cost(rooms, nodes_per_replica), name)
            for name, rooms in domains.items()
            if len(rooms) >= nodes_per_replica
        ]
        if not able:
            break
        rooms = domains[min(able)[1]]
        replicas.append(tuple(list(rooms)[:nodes_per_replica]))
        for name in replicas[-1]:
            rooms[name] -= 1
            if not rooms[name]:
                del rooms[name]
    return tuple(replicas)


def tolerations_of(spec: LLMDeploymentSpec, with_gpu: bool) -> tuple[Toleration, ...]:
    """Give what the pods tolerate: what the spec lists and, with GPUs, the usual taint of GPU nodes."""
    stated = (
        Toleration(
            each.key or "",
            str(each.operator.value),
            each.value or "",
            each.effect.value if each.effect else "",
        )
        for each in spec.hardware.tolerations
    )
    return (*((GPU_TOLERATION,) if with_gpu else ()), *stated)


def _best_first(needs: PodNeeds, nodes: Iterable[NodeRoom] | Arranged) -> Iterator[tuple[NodeRoom, int]]:
    """Give nodes that may have room, the one to take first first, with how many pods each takes."""
    if isinstance(nodes, Arranged) and needs.gpus:
        for node in nodes.best_first(needs.gpus):
            yield node, room_for(needs.requests, node.free)
        return
    known = nodes.nodes if isinstance(nodes, Arranged) else nodes
    options = [node for node in known if not lacks_any(needs.requests, node.free)]
    for node in sorted(options, key=lambda node: placement_order(node, needs)):
        yield node, pods_that_fit(node, needs)


def _within_quotas(needs: PodNeeds, quotas: Iterable[QuotaRoom], count: int) -> int:
    """How many of `count` such pods the quotas admit."""
    limits = (quota.pods_that_fit(needs.requests) for quota in quotas)
    return min([count, *(limit for limit in limits if limit is not None)])


def _cost(rooms: Mapping[str, int], wanted: int) -> tuple[int, int]:
    """Grade a domain: nodes that would have to be added, then how much of it is free."""
    return to_come(list(rooms)[:wanted]), sum(rooms.values())


def _spread(options: list[tuple[NodeRoom, int]], count: int) -> tuple[str, ...]:
    """Deal replicas out one by one, as the scheduler spreads pods that ask for no devices."""
    left = {node.facts.name: room for node, room in options}
    names: list[str] = []
    while len(names) < count and any(left.values()):
        for name, room in left.items():
            if room and len(names) < count:
                left[name] -= 1
                names.append(name)
    return tuple(names)
