"""What planning needs to know about one node, read from the raw Node object.

Facts only: whether a node suits a deployment is decided by placement, never here. A node whose GPUs cannot be
planned with keeps its refusal, so that the user is told about it by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stowage.api.refusal import Refusal
from stowage.hardware.gpu_labels import GpuIdentity, LabelledNode, identify_gpus, on_request
from stowage.hardware.resources import Resources, parse_resources
from stowage.hardware.taints import Taint, parse_taints

__all__ = ["GpuIdentity", "NodeFacts", "Taint", "node_facts"]


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One node: labels, taints, whether it takes pods, what it offers, and its GPUs.

    `gpus` is None on a node without GPUs and on one whose GPUs cannot be planned with; then `refusal` says
    why, and `on_request` is what it offers to deployments that name it. `pool` is the node pool that would have to
    grow by this node: None for every node that exists.
    """

    name: str
    labels: Mapping[str, str]
    taints: tuple[Taint, ...]
    unschedulable: bool
    ready: bool
    allocatable: Resources
    gpus: GpuIdentity | None
    refusal: Refusal | None
    on_request: tuple[GpuIdentity, ...] = ()
    pool: str | None = None

    @property
    def is_gpu_node(self) -> bool:
        """Whether the node has GPUs, usable or not."""
        return self.gpus is not None or self.refusal is not None

    def offer(self, resource: str, selector: Mapping[str, str]) -> GpuIdentity | None:
        """Give the devices that a pod with this resource and node selector gets here, None if there are none.

        Devices that are handed out on request only go to pods whose selector picks them.
        """
        if self.gpus is not None:
            return self.gpus if self.gpus.resource_name == resource else None
        for gpus in self.on_request:
            if gpus.resource_name == resource and gpus.node_selector.items() <= selector.items():
                return gpus
        return None


def node_facts(node: Mapping[str, Any]) -> NodeFacts:
    """Read a Node as the API server sends it. Raises QuantityError on a malformed amount."""
    metadata, status = node.get("metadata") or {}, node.get("status") or {}
    name = str(metadata.get("name", ""))
    labels = {str(key): str(value) for key, value in (metadata.get("labels") or {}).items()}
    allocatable = parse_resources(status.get("allocatable"))
    capacity = parse_resources(status.get("capacity")) if status.get("capacity") else allocatable
    labelled = LabelledNode(name, labels, capacity, allocatable)
    found = identify_gpus(labelled)
    return NodeFacts(
        name=name,
        labels=labels,
        taints=parse_taints(node),
        unschedulable=bool((node.get("spec") or {}).get("unschedulable")),
        ready=_is_ready(status) and metadata.get("deletionTimestamp") is None,
        allocatable=allocatable,
        gpus=found if isinstance(found, GpuIdentity) else None,
        refusal=found if isinstance(found, Refusal) else None,
        on_request=on_request(labelled) if isinstance(found, Refusal) else (),
    )


def _is_ready(status: Mapping[str, Any]) -> bool:
    """Read the Ready condition; a node without one (a hand-written inventory) counts as ready."""
    for condition in status.get("conditions") or ():
        if condition.get("type") == "Ready":
            return bool(condition.get("status") == "True")
    return True
