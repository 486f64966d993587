"""Keeps places free for pods that wait for one, in the order in which they are promised.

Pods of several LLMDeployments wait at the same time in a large cluster, so nodes are told apart by class first:
whether a pod may go to a node at all is asked once per class of alike nodes, never per node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace

from stowage.hardware.best_fit import Order, placement_order
from stowage.hardware.node import NodeFacts
from stowage.hardware.pod_usage import PodUsage
from stowage.hardware.resources import Resources
from stowage.hardware.room import NodeRoom, PodNeeds, lacks_any, standing_obstacle


def keep_free(rooms: Sequence[NodeRoom], pods: Iterable[PodUsage]) -> tuple[NodeRoom, ...]:
    """Take a place for each pod in order of namespace and name; a pod that fits nowhere takes nothing."""
    waiting = sorted(pods, key=lambda each: (each.namespace, each.name))
    if not waiting:
        return tuple(rooms)
    board = _Board(rooms, waiting)
    for pod in waiting:
        board.place(pod)
    return tuple(board.rooms)


def take(room: NodeRoom, pod: PodUsage, sign: int) -> NodeRoom:
    """The node with the pod on it (`sign` 1), or without a pod that is there now (-1)."""
    free = room.free.minus(pod.requests.times(sign))
    taken = devices_held(room.facts, pod.requests) * sign
    if not taken:
        return replace(room, free=free)
    holders = Counter(dict(room.holders))
    holders[pod.holder] += taken
    return replace(
        room, free=free, holders={name: count for name, count in sorted(holders.items()) if count > 0}
    )


def devices_held(facts: NodeFacts, requests: Resources) -> int:
    """How many of the node's devices these requests take."""
    gpus = facts.gpus
    if gpus is not None:
        return requests.count(gpus.resource_name)
    return sum(requests.count(name) for name in {each.resource_name for each in facts.on_request})


class _Board:
    """Nodes in classes; `rooms` is the current state, changed by every pod that is placed."""

    def __init__(self, rooms: Sequence[NodeRoom], pods: Iterable[PodUsage]) -> None:
        self.rooms = list(rooms)
        self._keys = tuple(sorted({key for pod in pods for key in pod.node_selector}))
        self._classes: dict[Hashable, list[int]] = {}
        for index, room in enumerate(rooms):
            self._classes.setdefault(self._class_of(room), []).append(index)
        self._open: dict[Hashable, list[int]] = {}
        self._orders: dict[tuple[int, str | None], dict[int, Order]] = {}

    def place(self, pod: PodUsage) -> None:
        """Take the tightest place for the pod, if there is one."""
        needs = PodNeeds(pod.requests, pod.node_selector, pod.tolerations, pod.device)
        asked, rooms = pod.requests, self.rooms
        amounts = (asked.cpu_millicores, asked.memory_bytes, asked.pods, _as_key(asked.extended))
        kind = (_as_key(needs.node_selector), needs.tolerations, amounts)
        if kind not in self._open:
            self._open[kind] = self._open_to(needs)
        # Room only ever shrinks here, so what lacks something for one pod lacks it for the next of its kind.
        fitting = [index for index in self._open[kind] if not lacks_any(asked, rooms[index].free)]
        self._open[kind] = fitting
        if fitting:
            index = self._tightest(fitting, needs)
            rooms[index] = _promise(take(rooms[index], pod, 1), pod)
            for orders in self._orders.values():
                orders.pop(index, None)

    def _tightest(self, fitting: Sequence[int], needs: PodNeeds) -> int:
        orders = self._orders.setdefault((needs.gpus, needs.gpu_resource), {})
        for index in fitting:
            if index not in orders:
                orders[index] = placement_order(self.rooms[index], needs)
        return min(fitting, key=orders.__getitem__)

    def _open_to(self, needs: PodNeeds) -> list[int]:
        """Indexes of the nodes that such a pod may go to if there is room."""
        return [
            index
            for members in self._classes.values()
            if standing_obstacle(self.rooms[members[0]].facts, needs) is None
            for index in members
        ]

    def _class_of(self, room: NodeRoom) -> Hashable:
        """All that `standing_obstacle` looks at."""
        facts, gpus = room.facts, room.facts.gpus
        devices = (gpus.resource_name, gpus.count, gpus.sharing) if gpus is not None else None
        return (
            devices,
            facts.name if facts.on_request else facts.refusal is not None,
            facts.taints,
            facts.ready,
            facts.unschedulable,
            facts.labels.get("kubernetes.io/os"),
            *[facts.labels.get(key) for key in self._keys],
        )


def _as_key(items: Mapping[str, object]) -> Hashable:
    return tuple(sorted(items.items()))


def _promise(room: NodeRoom, pod: PodUsage) -> NodeRoom:
    count = devices_held(room.facts, pod.requests)
    if not count:
        return room
    promised = Counter(dict(room.promised))
    promised[pod.holder] += count
    return replace(room, promised=dict(sorted(promised.items())))
