"""What a Deployment of ours asks of the cluster, and how much of it has no place yet.

Pods that are asked for but not bound to a node would otherwise be invisible: two LLMDeployments planned within a
second of each other would be promised the same GPUs. Everything here is pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from stowage.hardware.inventory import Inventory, PodUsage, pod_usage, release, reserve
from stowage.hardware.resources import Resources


@dataclass(frozen=True, slots=True)
class Demand:
    """`replicas` pods like `pod`, which has no node."""

    replicas: int
    pod: PodUsage

    @classmethod
    def of_deployment(cls, deployment: Mapping[str, Any]) -> Demand:
        """Read a rendered or live Deployment."""
        template = deployment["spec"]["template"]
        namespace = deployment["metadata"].get("namespace", "")
        name = deployment["metadata"]["name"]
        metadata = {**(template.get("metadata") or {}), "name": name, "namespace": namespace}
        return cls(int(deployment["spec"].get("replicas", 1)), pod_usage({**template, "metadata": metadata}))


@dataclass(frozen=True, slots=True)
class Waiting:
    """Pods without a node; `leaving` are bound pods of an older template, whose room they may take over."""

    pods: tuple[PodUsage, ...]
    leaving: tuple[PodUsage, ...] = ()


def waiting(demand: Demand, live_pods: Iterable[PodUsage]) -> Waiting:
    """What of a demand has no place, given the live server pods of its LLMDeployment."""
    bound = [usage for usage in live_pods if usage.node_name is not None]
    current = sum(1 for usage in bound if usage.requests == demand.pod.requests)
    count = max(demand.replicas - current, 0)
    pods = tuple(replace(demand.pod, name=f"{demand.pod.name}-{index}") for index in range(count))
    return Waiting(pods, tuple(usage for usage in bound if usage.requests != demand.pod.requests))


def keep_places(inventory: Inventory, everybody: Iterable[Waiting]) -> Inventory:
    """The inventory without the places that waiting pods will take.

    A pod that fits nowhere takes nothing: it could not be placed whoever else waits.
    """
    items = list(everybody)
    for item in items:
        if item.leaving:
            inventory = _least_free(inventory, reserve(release(inventory, item.leaving), item.pods))
    return reserve(inventory, [pod for item in items if not item.leaving for pod in item.pods])


def _least_free(now: Inventory, after: Inventory) -> Inventory:
    """Room that is free now and stays free: what leaving pods hold is not free yet."""
    before = {room.facts.name: room.free for room in now.nodes}
    rooms = (replace(room, free=_least(room.free, before[room.facts.name])) for room in after.nodes)
    return replace(after, nodes=tuple(rooms))


def _least(one: Resources, other: Resources) -> Resources:
    names = {**one.extended, **other.extended}
    return Resources(
        min(one.cpu_millicores, other.cpu_millicores),
        min(one.memory_bytes, other.memory_bytes),
        min(one.pods, other.pods),
        {name: min(one.count(name), other.count(name)) for name in names},
    )
