"""The snapshot that a plan is made on: nodes, what is free on them, and the namespace's quotas.

Everything that runs counts, whoever it belongs to. Pods of LLMDeployments that have no node yet count too:
their places are kept free, so that two deployments are never promised the same GPU. Nodes that pools could still
grow by are in it as well, marked as such.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from stowage.hardware.node import NodeFacts
from stowage.hardware.pod_usage import PodUsage, pod_usage
from stowage.hardware.pools import Pool, nodes_to_come, with_pool_gpus
from stowage.hardware.quota import QuotaRoom, quota_room
from stowage.hardware.reservation import devices_held, keep_free, take
from stowage.hardware.resources import total
from stowage.hardware.room import NodeRoom

__all__ = [
    "Inventory",
    "NodeRoom",
    "PodUsage",
    "QuotaRoom",
    "build_inventory",
    "pod_usage",
    "quota_room",
    "release",
    "reserve",
]


@dataclass(frozen=True, slots=True)
class Inventory:
    """Nodes with their room in order of name, those that pools could grow by last, and the namespace's quotas."""

    nodes: tuple[NodeRoom, ...]
    quotas: tuple[QuotaRoom, ...] = ()


def build_inventory(
    nodes: Iterable[NodeFacts],
    pods: Iterable[PodUsage],
    quotas: Iterable[QuotaRoom] = (),
    pools: Sequence[Pool] = (),
) -> Inventory:
    """Take what pods hold off the nodes, and keep places free for unbound pods of LLMDeployments.

    Leave out of `pods` the unbound ones of the deployment that is planned for; its bound ones are given
    back by `release` where they may be replaced.
    """
    by_node: dict[str, list[PodUsage]] = {}
    unbound = []
    for pod in pods:
        if pod.node_name is not None:
            by_node.setdefault(pod.node_name, []).append(pod)
        elif pod.owner is not None:
            unbound.append(pod)
    present = [with_pool_gpus(facts, pools) for facts in sorted(nodes, key=lambda each: each.name)]
    rooms = [_room(facts, by_node.get(facts.name, ())) for facts in present]
    rooms += [NodeRoom(facts, facts.allocatable) for facts in nodes_to_come(pools, present)]
    return reserve(Inventory(tuple(rooms), tuple(quotas)), unbound)


def reserve(inventory: Inventory, pods: Iterable[PodUsage]) -> Inventory:
    """Keep a place free for each unbound pod, where there is one that the scheduler could use."""
    return replace(inventory, nodes=keep_free(inventory.nodes, pods))


def release(inventory: Inventory, pods: Iterable[PodUsage]) -> Inventory:
    """Imagine these pods gone: bound ones give back their node's room, all of them their quota."""
    gone = tuple(pods)
    if not gone:
        return inventory
    leaving: dict[str, list[PodUsage]] = {}
    for pod in gone:
        if pod.node_name is not None:
            leaving.setdefault(pod.node_name, []).append(pod)
    rooms = list(inventory.nodes)
    for index, room in enumerate(rooms):
        for pod in leaving.get(room.facts.name, ()):
            rooms[index] = take(rooms[index], pod, -1)
    quotas = (
        quota.credited(total(pod.requests for pod in gone if pod.namespace == quota.namespace))
        for quota in inventory.quotas
    )
    return replace(inventory, nodes=tuple(rooms), quotas=tuple(quotas))


def _room(facts: NodeFacts, pods: Sequence[PodUsage]) -> NodeRoom:
    if not pods:
        return NodeRoom(facts, facts.allocatable)
    free = facts.allocatable.minus(total(pod.requests for pod in pods))
    if not facts.is_gpu_node:
        return NodeRoom(facts, free)
    holders: Counter[str] = Counter()
    for pod in pods:
        if pod.requests.extended and (held := devices_held(facts, pod.requests)):
            holders[pod.holder] += held
    return NodeRoom(facts, free, dict(sorted(holders.items())))
