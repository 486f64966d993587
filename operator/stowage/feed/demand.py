"""What a Deployment of ours asks of the cluster, and how much of it has no place yet.

Pods that are asked for but not bound to a node would otherwise be invisible: two LLMDeployments planned within a
second of each other would be promised the same GPUs. Everything here is pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from stowage.hardware.inventory import Inventory, PodUsage, QuotaRoom, pod_usage, release, reserve
from stowage.hardware.resources import Resources
from stowage.kube.facts import has_ended
from stowage.render.pod_template import template_hash


@dataclass(frozen=True, slots=True)
class Demand:
    """`replicas` pods like `pod`, which has no node, and `surge` more while older pods are replaced.

    `template_hash` is what pods of this template carry; None for templates without one.
    """

    replicas: int
    pod: PodUsage
    template_hash: str | None = None
    surge: int = 0

    @classmethod
    def of_deployment(cls, deployment: Mapping[str, Any]) -> Demand:
        """Read a rendered or live Deployment."""
        spec = deployment["spec"]
        template = spec["template"]
        namespace = deployment["metadata"].get("namespace", "")
        name = deployment["metadata"]["name"]
        metadata = {**(template.get("metadata") or {}), "name": name, "namespace": namespace}
        pod = pod_usage({**template, "metadata": metadata})
        replicas = int(spec.get("replicas", 1))
        return cls(replicas, pod, template_hash({"metadata": metadata}), _surge(spec, replicas))


@dataclass(frozen=True, slots=True)
class LivePod:
    """A server pod as it is, and what it holds or asks for."""

    raw: Mapping[str, Any]
    usage: PodUsage

    def is_current(self, demand: Demand) -> bool:
        """Whether it is one of the pods that are asked for. Its requests do not tell: admission may change them."""
        return template_hash(self.raw) == demand.template_hash and not self._is_going

    @property
    def _is_going(self) -> bool:
        return bool(self.raw["metadata"].get("deletionTimestamp"))


@dataclass(frozen=True, slots=True)
class Waiting:
    """Pods without a node, the first `uncreated` of which do not exist yet.

    `leaving` are bound pods that will go, of an older template above all: their room may be taken over.
    """

    pods: tuple[PodUsage, ...]
    leaving: tuple[PodUsage, ...] = ()
    uncreated: int = 0


def waiting(demand: Demand, live_pods: Iterable[LivePod]) -> Waiting:
    """What of a demand has no place, given the live server pods of its LLMDeployment."""
    pods = [pod for pod in live_pods if not has_ended(pod.raw)]
    bound = [pod for pod in pods if pod.usage.node_name is not None]
    current = sum(pod.is_current(demand) for pod in bound)
    pending = sum(pod.is_current(demand) for pod in pods) - current
    replacing = any(template_hash(pod.raw) != demand.template_hash for pod in bound)
    wanted = demand.replicas + (demand.surge if replacing and demand.replicas else 0)
    count = max(wanted - current, 0)
    return Waiting(
        tuple(replace(demand.pod, name=f"{demand.pod.name}-{index}") for index in range(count)),
        tuple(pod.usage for pod in bound if not pod.is_current(demand)),
        max(count - pending, 0),
    )


def keep_quota(quotas: Iterable[QuotaRoom], everybody: Iterable[Waiting]) -> tuple[QuotaRoom, ...]:
    """The quotas without what pods that do not exist yet will use; those that exist are counted as used already."""
    rooms = Inventory((), tuple(quotas))
    for item in everybody:
        made = [replace(pod, requests=pod.requests.times(-1)) for pod in item.pods[: item.uncreated]]
        after = release(rooms, [*made, *item.leaving])
        # What leaving pods use is not there for others: their successors take it over.
        least = [_least_quota(now, then) for now, then in zip(rooms.quotas, after.quotas, strict=True)]
        rooms = replace(rooms, quotas=tuple(least))
    return rooms.quotas


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
    rooms = (
        # Most nodes are the same objects as before.
        room
        if room.free is before[room.facts.name]
        else replace(room, free=_least(room.free, before[room.facts.name]))
        for room in after.nodes
    )
    return replace(after, nodes=tuple(rooms))


def _least(one: Resources, other: Resources) -> Resources:
    names = {**one.extended, **other.extended}
    return Resources(
        min(one.cpu_millicores, other.cpu_millicores),
        min(one.memory_bytes, other.memory_bytes),
        min(one.pods, other.pods),
        {name: min(one.count(name), other.count(name)) for name in names},
    )


def _least_quota(now: QuotaRoom, then: QuotaRoom) -> QuotaRoom:
    return replace(now, room={key: min(left, then.room[key]) for key, left in now.room.items()})


def _surge(spec: Mapping[str, Any], replicas: int) -> int:
    """Pods that a rollout may add; the API server's default is a quarter, and percentages are rounded up."""
    strategy = spec.get("strategy") or {}
    if strategy.get("type") == "Recreate":
        return 0
    value = (strategy.get("rollingUpdate") or {}).get("maxSurge", "25%")
    if isinstance(value, int):
        return value
    return -(-replicas * int(value.removesuffix("%")) // 100)
