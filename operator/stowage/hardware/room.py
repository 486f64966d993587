"""Whether one node can take a pod now, and if not, what stands in the way.

This is the scheduler's view: readiness, cordon, taints, selectors, and free CPU, memory, pod slots and
devices. The search for places and the explanation of a refusal both use it, so they can never disagree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from stowage.api.conditions import Reason
from stowage.hardware.gpu_identity import Sharing
from stowage.hardware.node import NodeFacts
from stowage.hardware.resources import Resources
from stowage.hardware.taints import Toleration, untolerated

_NOTHING: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True)
class NodeRoom:
    """A node and what is free on it.

    `holders` counts the GPUs that are not free, by who has them; `promised` those of them that no pod holds yet,
    which are kept for LLMDeployments that come first.
    """

    facts: NodeFacts
    free: Resources
    holders: Mapping[str, int] = field(default_factory=lambda: _NOTHING)
    promised: Mapping[str, int] = field(default_factory=lambda: _NOTHING)

    @property
    def free_gpus(self) -> int:
        """GPUs that a new pod could get; 0 on nodes without usable GPUs."""
        gpus = self.facts.gpus
        return max(0, self.free.count(gpus.resource_name)) if gpus else 0

    @property
    def total_gpus(self) -> int:
        """GPUs that the node offers in all."""
        return self.facts.gpus.count if self.facts.gpus else 0


@dataclass(frozen=True, slots=True)
class PodNeeds:
    """What a pod asks of a node. `gpu_resource` names its devices, None without; `gpus` is their number."""

    requests: Resources
    node_selector: Mapping[str, str]
    tolerations: tuple[Toleration, ...]
    gpu_resource: str | None = None
    gpus: int = field(init=False)

    def __post_init__(self) -> None:
        asked = self.requests.count(self.gpu_resource) if self.gpu_resource else 0
        object.__setattr__(self, "gpus", asked)


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a pod cannot go to a node: a documented reason and words that follow the node's name."""

    reason: Reason
    words: str


def matches_selector(facts: NodeFacts, selector: Mapping[str, str]) -> bool:
    """Whether the node has every label of the selector."""
    labels = facts.labels
    for key, value in selector.items():  # noqa: SIM110 — a generator takes twice as long, and this runs per node
        if labels.get(key) != value:
            return False
    return True


def closed(facts: NodeFacts, tolerations: tuple[Toleration, ...]) -> Obstacle | None:
    """Why the node takes no such pod at all, whatever is free: not ready, cordoned or tainted."""
    if facts.labels.get("kubernetes.io/os", "linux") != "linux":
        return Obstacle(Reason.NODES_UNSCHEDULABLE, "does not run Linux")
    if not facts.ready:
        return Obstacle(Reason.NODES_UNSCHEDULABLE, "is not ready")
    if facts.unschedulable:
        return Obstacle(Reason.NODES_UNSCHEDULABLE, "is cordoned")
    taint = untolerated(facts.taints, tolerations)
    if taint is not None:
        return Obstacle(Reason.NODES_UNSCHEDULABLE, f"has the taint {taint}, which is not tolerated")
    return None


def obstacle(node: NodeRoom, needs: PodNeeds) -> Obstacle | None:
    """Find what keeps one such pod off the node, the most fundamental cause first; None if nothing."""
    return standing_obstacle(node.facts, needs) or _too_little(node, needs)


def obstacle_reason(node: NodeRoom, needs: PodNeeds) -> Reason | None:
    """Tell the reason of `obstacle` without putting it into words, for the many nodes that nobody reads about."""
    standing = standing_obstacle(node.facts, needs)
    return standing.reason if standing is not None else _lacking(node, needs)


def standing_obstacle(facts: NodeFacts, needs: PodNeeds) -> Obstacle | None:
    """Find what keeps such a pod off the node however much of it is free; None if nothing."""
    if not matches_selector(facts, needs.node_selector):
        return Obstacle(Reason.NO_MATCHING_GPU, "does not have the labels that are asked for")
    return _devices(facts, needs) or closed(facts, needs.tolerations)


def pods_that_fit(node: NodeRoom, needs: PodNeeds) -> int:
    """How many such pods the node can take now."""
    # Most nodes of a busy cluster lack something, which is cheaper to find out than whether they are open.
    count = room_for(needs.requests, node.free)
    return count if count and standing_obstacle(node.facts, needs) is None else 0


def room_for(asked: Resources, free: Resources) -> int:
    """How many times what is asked for is there; 1 where nothing is asked for."""
    if lacks_any(asked, free):
        return 0
    pairs = [
        (asked.cpu_millicores, free.cpu_millicores),
        (asked.memory_bytes, free.memory_bytes),
        (asked.pods, free.pods),
        *((amount, free.count(name)) for name, amount in asked.extended.items()),
    ]
    return min((room // amount for amount, room in pairs if amount > 0), default=1)


def lacks_any(asked: Resources, free: Resources) -> bool:
    """Whether anything that is asked for is not there; the quick form of `Resources.lacking`."""
    room = free.extended
    for name, amount in asked.extended.items():
        if amount > room.get(name, 0) and amount > 0:
            return True
    cpu_millicores, memory_bytes, pods = asked.cpu_millicores, asked.memory_bytes, asked.pods
    return (
        (memory_bytes > free.memory_bytes and memory_bytes > 0)
        or (cpu_millicores > free.cpu_millicores and cpu_millicores > 0)
        or (pods > free.pods and pods > 0)
    )


def _devices(facts: NodeFacts, needs: PodNeeds) -> Obstacle | None:
    resource = needs.gpu_resource
    if resource is None:
        words = "has GPUs, which class CPU leaves to others"
        return Obstacle(Reason.NO_CPU_NODES, words) if facts.is_gpu_node else None
    gpus = facts.offer(resource, needs.node_selector)
    if gpus is None:
        if facts.refusal is not None:
            return Obstacle(facts.refusal.reason, "has GPUs that cannot be planned with")
        return Obstacle(Reason.INSUFFICIENT_GPUS, f"has no {resource}")
    if needs.gpus > 1 and gpus.sharing is not Sharing.WHOLE:
        what = "slices of GPUs" if gpus.sharing is Sharing.SLICE else "shared GPUs"
        return Obstacle(Reason.UNSUPPORTED_GPU, f"has {what}, which do not work together in one replica")
    if needs.gpus > gpus.count:
        return Obstacle(Reason.INSUFFICIENT_GPUS, f"has {gpus.count} GPUs in all")
    return None


def _lacking(node: NodeRoom, needs: PodNeeds) -> Reason | None:
    if not lacks_any(needs.requests, node.free):
        return None
    if needs.gpu_resource is not None:
        free = max(0, node.free.count(needs.gpu_resource))
        if needs.gpus > free:
            granted = needs.gpus <= free + sum(node.promised.values())
            return Reason.GPUS_GRANTED_ELSEWHERE if granted else Reason.INSUFFICIENT_GPUS
    return Reason.INSUFFICIENT_NODE_RESOURCES


def _too_little(node: NodeRoom, needs: PodNeeds) -> Obstacle | None:
    reason = _lacking(node, needs)
    if reason is None:
        return None
    if reason is Reason.GPUS_GRANTED_ELSEWHERE:
        return Obstacle(reason, f"keeps its free GPUs for {', '.join(node.promised)}")
    if reason is Reason.INSUFFICIENT_GPUS and needs.gpu_resource is not None:
        gpus = node.facts.offer(needs.gpu_resource, needs.node_selector)
        free = max(0, node.free.count(needs.gpu_resource))
        return Obstacle(reason, f"has {free} of {gpus.count if gpus else 0} GPUs free")
    lacking = needs.requests.lacking(node.free)
    return Obstacle(
        reason, "lacks " + ", ".join(_shortage(name, node.free, needs.requests) for name in lacking)
    )


def _shortage(name: str, free: Resources, asked: Resources) -> str:
    if name == "cpu":
        return f"CPU ({free.cpu_millicores / 1000:g} of {asked.cpu_millicores / 1000:g} cores free)"
    if name == "memory":
        return f"memory ({free.memory_bytes / 2**30:.1f} of {asked.memory_bytes / 2**30:.1f} GiB free)"
    if name == "pods":
        return "a free pod slot"
    return f"{name} ({free.count(name)} of {asked.count(name)} free)"
