"""The snapshot that a plan is made on: nodes, what is free on them, and the namespace's quotas.

Everything that runs counts, whoever it belongs to. Pods of LLMDeployments that have no node yet count too:
their places are kept free, so that two deployments are never promised the same GPU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from stowage.hardware.gpu_labels import NVIDIA_GPU
from stowage.hardware.node import NodeFacts
from stowage.hardware.resources import Resources, parse_resources, total
from stowage.hardware.room import NodeRoom, PodNeeds, pods_that_fit
from stowage.hardware.taints import Toleration, parse_tolerations

__all__ = [
    "Inventory",
    "NodeRoom",
    "PodUsage",
    "QuotaRoom",
    "build_inventory",
    "placement_order",
    "pod_usage",
    "quota_room",
    "release",
    "reserve",
]

_OWNER_LABEL: Final = "stowage.dev/name"
_DEVICE_PREFIXES: Final = ("nvidia.com/", "amd.com/", "gpu.intel.com/")
_FINISHED: Final = frozenset({"Succeeded", "Failed"})
_NO_SELECTOR: Final[Mapping[str, str]] = {}
# A quota with other scopes binds only some pods (by priority class, best effort, deadline), not plainly ours.
_GENERAL_SCOPES: Final = frozenset({"NotBestEffort", "NotTerminating"})


@dataclass(frozen=True, slots=True)
class PodUsage:
    """What a pod holds or is about to hold.

    `node_name` is None until it is bound. `owner` is `namespace/name` of the LLMDeployment that the pod
    serves, None for foreign pods. `requests` counts one pod slot.
    """

    namespace: str
    name: str
    node_name: str | None
    requests: Resources
    owner: str | None
    node_selector: Mapping[str, str] = field(default_factory=lambda: _NO_SELECTOR)
    tolerations: tuple[Toleration, ...] = ()


@dataclass(frozen=True, slots=True)
class QuotaRoom:
    """What a ResourceQuota leaves: hard − used per key, CPU in millicores, everything else in base units."""

    namespace: str
    name: str
    room: Mapping[str, int]

    def pods_that_fit(self, requests: Resources) -> int | None:
        """How many pods with these requests the quota admits; None if it does not limit them."""
        limits = [
            max(0, left) // amount
            for key, left in self.room.items()
            if (amount := _charged(key, requests)) > 0
        ]
        return min(limits) if limits else None

    def lacking(self, requests: Resources) -> str | None:
        """Name the first key that one such pod would exceed, or None."""
        return next(
            (key for key, left in sorted(self.room.items()) if _charged(key, requests) > max(0, left)), None
        )


@dataclass(frozen=True, slots=True)
class Inventory:
    """Nodes with their room in order of name, and the quotas of the namespace that is planned for."""

    nodes: tuple[NodeRoom, ...]
    quotas: tuple[QuotaRoom, ...] = ()


def pod_usage(pod: Mapping[str, Any]) -> PodUsage:
    """Read a Pod as the scheduler counts it; a finished one holds nothing. Raises QuantityError."""
    metadata, spec = pod.get("metadata") or {}, pod.get("spec") or {}
    namespace, labels = str(metadata.get("namespace") or "default"), metadata.get("labels") or {}
    finished = (pod.get("status") or {}).get("phase") in _FINISHED
    owner = labels.get(_OWNER_LABEL)
    return PodUsage(
        namespace=namespace,
        name=str(metadata.get("name", "")),
        node_name=spec.get("nodeName") or None,
        requests=Resources() if finished else _pod_requests(spec),
        owner=f"{namespace}/{owner}" if owner else None,
        node_selector=dict(spec.get("nodeSelector") or {}),
        tolerations=parse_tolerations(spec.get("tolerations") or ()),
    )


def quota_room(quota: Mapping[str, Any]) -> QuotaRoom:
    """Read a ResourceQuota; keys that no pod of ours counts against are kept but match nothing."""
    metadata, spec, status = quota.get("metadata") or {}, quota.get("spec") or {}, quota.get("status") or {}
    scopes = {str(scope) for scope in spec.get("scopes") or ()}
    general = scopes <= _GENERAL_SCOPES and not spec.get("scopeSelector")
    hard = status.get("hard") or spec.get("hard") or {}
    used = status.get("used") or {}
    room = {
        key: _quota_amount(key, hard[key]) - _quota_amount(key, used.get(key, 0)) for key in hard if general
    }
    return QuotaRoom(str(metadata.get("namespace") or "default"), str(metadata.get("name", "")), room)


def build_inventory(
    nodes: Iterable[NodeFacts],
    pods: Iterable[PodUsage],
    quotas: Iterable[QuotaRoom] = (),
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
    rooms = (_room(facts, by_node.get(facts.name, ())) for facts in sorted(nodes, key=lambda each: each.name))
    return reserve(Inventory(tuple(rooms), tuple(quotas)), unbound)


def reserve(inventory: Inventory, pods: Iterable[PodUsage]) -> Inventory:
    """Keep a place free for each unbound pod, where there is one that the scheduler could use."""
    rooms = list(inventory.nodes)
    for pod in sorted(pods, key=lambda each: (each.namespace, each.name)):
        needs = PodNeeds(pod.requests, pod.node_selector, pod.tolerations, _device(pod.requests))
        options = [index for index, room in enumerate(rooms) if pods_that_fit(room, needs) > 0]
        if options:
            index = min(options, key=lambda each: placement_order(rooms[each], needs))
            rooms[index] = _promise(_take(rooms[index], pod, 1), pod)
    return replace(inventory, nodes=tuple(rooms))


def release(inventory: Inventory, pods: Iterable[PodUsage]) -> Inventory:
    """Imagine these pods gone: bound ones give back their node's room, all of them their quota."""
    gone = tuple(pods)
    rooms = {room.facts.name: room for room in inventory.nodes}
    for pod in gone:
        if pod.node_name in rooms:
            rooms[pod.node_name] = _take(rooms[pod.node_name], pod, -1)
    quotas = (
        replace(
            quota,
            room=_credited(quota, total(pod.requests for pod in gone if pod.namespace == quota.namespace)),
        )
        for quota in inventory.quotas
    )
    return replace(inventory, nodes=tuple(rooms.values()), quotas=tuple(quotas))


def placement_order(room: NodeRoom, needs: PodNeeds) -> tuple[int, int, int, str]:
    """Sort key of nodes that could take a pod: the tightest place first, so that whole nodes stay whole.

    With GPUs: fewest free GPUs, then the smaller node. Without: the most free memory. The name decides the
    rest.
    """
    if needs.gpus:
        return (room.free_gpus, room.total_gpus, room.free.memory_bytes, room.facts.name)
    return (0, 0, -room.free.memory_bytes, room.facts.name)


def _room(facts: NodeFacts, pods: Iterable[PodUsage]) -> NodeRoom:
    room = NodeRoom(facts, facts.allocatable)
    for pod in pods:
        room = _take(room, pod, 1)
    return room


def _take(room: NodeRoom, pod: PodUsage, sign: int) -> NodeRoom:
    free = room.free.minus(pod.requests.times(sign))
    gpus = room.facts.gpus
    taken = pod.requests.count(gpus.resource_name) * sign if gpus else 0
    if not taken:
        return replace(room, free=free)
    holders = Counter(dict(room.holders))
    holders[_holder(pod)] += taken
    return replace(
        room, free=free, holders={name: count for name, count in sorted(holders.items()) if count > 0}
    )


def _promise(room: NodeRoom, pod: PodUsage) -> NodeRoom:
    gpus = room.facts.gpus
    count = pod.requests.count(gpus.resource_name) if gpus else 0
    if not count:
        return room
    promised = Counter(dict(room.promised))
    promised[_holder(pod)] += count
    return replace(room, promised=dict(sorted(promised.items())))


def _holder(pod: PodUsage) -> str:
    return pod.owner or f"namespace {pod.namespace}"


def _device(requests: Resources) -> str | None:
    return next((name for name in sorted(requests.extended) if name.startswith(_DEVICE_PREFIXES)), None)


def _pod_requests(spec: Mapping[str, Any]) -> Resources:
    """Sum as the scheduler does: containers and sidecars, or the peak of the init phase, plus overhead.

    Rule: Kubernetes, "Resource sharing within containers" for init and sidecar containers.
    """
    running = total(_container_requests(each) for each in spec.get("containers") or ())
    sidecars, peak = Resources(), Resources()
    for container in spec.get("initContainers") or ():
        asked = _container_requests(container)
        if container.get("restartPolicy") == "Always":
            sidecars = sidecars.plus(asked)
            peak = peak.at_least(sidecars)
        else:
            peak = peak.at_least(sidecars.plus(asked))
    needed = running.plus(sidecars).at_least(peak)
    return _with_pod_level(spec, needed).plus(parse_resources(spec.get("overhead"))).plus(Resources(pods=1))


def _with_pod_level(spec: Mapping[str, Any], needed: Resources) -> Resources:
    """Pod-level requests, where a pod states them, replace the containers' CPU and memory."""
    stated = (spec.get("resources") or {}).get("requests") or {}
    whole = parse_resources(stated)
    return replace(
        needed,
        cpu_millicores=whole.cpu_millicores if "cpu" in stated else needed.cpu_millicores,
        memory_bytes=whole.memory_bytes if "memory" in stated else needed.memory_bytes,
    )


def _container_requests(container: Mapping[str, Any]) -> Resources:
    """Read a container's requests; a limit without one is a request, as the API server defaults it."""
    resources = container.get("resources") or {}
    return parse_resources({**(resources.get("limits") or {}), **(resources.get("requests") or {})})


def _quota_amount(key: str, value: Any) -> int:
    if key in ("cpu", "requests.cpu", "limits.cpu"):
        return parse_resources({"cpu": value}).cpu_millicores
    return parse_resources({"amount": value}).count("amount")


def _charged(key: str, requests: Resources) -> int:
    """Tell what one such pod counts against a quota key; 0 for keys that do not concern it."""
    if key in ("pods", "count/pods"):
        return requests.pods
    if key in ("cpu", "requests.cpu"):
        return requests.cpu_millicores
    if key in ("memory", "requests.memory"):
        return requests.memory_bytes
    if key == f"requests.{NVIDIA_GPU}":
        return requests.count(NVIDIA_GPU)
    return requests.count(key.removeprefix("requests.")) if key.startswith("requests.") else 0


def _credited(quota: QuotaRoom, given_back: Resources) -> Mapping[str, int]:
    return {key: left + _charged(key, given_back) for key, left in quota.room.items()}
