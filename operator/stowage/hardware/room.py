"""Whether one node can take a pod now, and if not, what stands in the way.

This is the scheduler's view: readiness, cordon, taints, selectors, and free CPU, memory, pod slots and
devices. The search for places and the explanation of a refusal both use it, so they can never disagree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from stowage.api.conditions import Reason
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
    """What a pod asks of a node. `gpu_resource` names the devices among the requests, None without."""

    requests: Resources
    node_selector: Mapping[str, str]
    tolerations: tuple[Toleration, ...]
    gpu_resource: str | None = None

    @property
    def gpus(self) -> int:
        """Devices that the pod asks for."""
        return self.requests.count(self.gpu_resource) if self.gpu_resource else 0


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a pod cannot go to a node: a documented reason and words that follow the node's name."""

    reason: Reason
    words: str


def matches_selector(facts: NodeFacts, selector: Mapping[str, str]) -> bool:
    """Whether the node has every label of the selector."""
    return all(facts.labels.get(key) == value for key, value in selector.items())


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
    if not matches_selector(node.facts, needs.node_selector):
        return Obstacle(Reason.NO_MATCHING_GPU, "does not have the labels that are asked for")
    if needs.gpu_resource is None and node.facts.is_gpu_node:
        return Obstacle(Reason.NO_CPU_NODES, "has GPUs, which class CPU leaves to others")
    if needs.gpus and node.facts.refusal is not None:
        return Obstacle(node.facts.refusal.reason, "has GPUs that cannot be planned with")
    if needs.gpus > node.total_gpus:
        return Obstacle(Reason.INSUFFICIENT_GPUS, f"has {node.total_gpus} GPUs in all")
    return closed(node.facts, needs.tolerations) or _too_little(node, needs)


def pods_that_fit(node: NodeRoom, needs: PodNeeds) -> int:
    """How many such pods the node can take now."""
    if obstacle(node, needs) is not None:
        return 0
    asked, free = needs.requests, node.free
    pairs = [
        (asked.cpu_millicores, free.cpu_millicores),
        (asked.memory_bytes, free.memory_bytes),
        (asked.pods, free.pods),
        *((amount, free.count(name)) for name, amount in asked.extended.items()),
    ]
    return min((room // amount for amount, room in pairs if amount > 0), default=1)


def _too_little(node: NodeRoom, needs: PodNeeds) -> Obstacle | None:
    lacking = needs.requests.lacking(node.free)
    if not lacking:
        return None
    if needs.gpu_resource in lacking and needs.gpus <= node.free_gpus + sum(node.promised.values()):
        return Obstacle(Reason.GPUS_GRANTED_ELSEWHERE, f"keeps its free GPUs for {', '.join(node.promised)}")
    if needs.gpu_resource in lacking:
        return Obstacle(Reason.INSUFFICIENT_GPUS, f"has {node.free_gpus} of {node.total_gpus} GPUs free")
    return Obstacle(
        Reason.INSUFFICIENT_NODE_RESOURCES,
        "lacks " + ", ".join(_shortage(name, node.free, needs.requests) for name in lacking),
    )


def _shortage(name: str, free: Resources, asked: Resources) -> str:
    if name == "cpu":
        return f"CPU ({free.cpu_millicores / 1000:g} of {asked.cpu_millicores / 1000:g} cores free)"
    if name == "memory":
        return f"memory ({free.memory_bytes / 2**30:.1f} of {asked.memory_bytes / 2**30:.1f} GiB free)"
    if name == "pods":
        return "a free pod slot"
    return f"{name} ({free.count(name)} of {asked.count(name)} free)"
