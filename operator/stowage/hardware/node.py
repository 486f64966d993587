"""What planning needs to know about one node, read from the raw Node object.

Facts only: whether a node suits a deployment is decided by placement, never here. A node whose GPUs cannot be
planned with keeps its refusal, so that the user is told about it by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stowage.api.refusal import Refusal
from stowage.hardware.gpu_labels import GpuIdentity, LabelledNode, identify_gpus
from stowage.hardware.resources import Resources, parse_resources
from stowage.hardware.taints import Taint, parse_taints

__all__ = ["GpuIdentity", "NodeFacts", "Taint", "node_facts"]


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One node: labels, taints, whether it takes pods, what it offers, and its GPUs.

    `gpus` is None on a node without GPUs and on one whose GPUs cannot be planned with; then `refusal` says
    why.
    """

    name: str
    labels: Mapping[str, str]
    taints: tuple[Taint, ...]
    unschedulable: bool
    ready: bool
    allocatable: Resources
    gpus: GpuIdentity | None
    refusal: Refusal | None

    @property
    def is_gpu_node(self) -> bool:
        """Whether the node has GPUs, usable or not."""
        return self.gpus is not None or self.refusal is not None


def node_facts(node: Mapping[str, Any]) -> NodeFacts:
    """Read a Node as the API server sends it. Raises QuantityError on a malformed amount."""
    metadata, status = node.get("metadata") or {}, node.get("status") or {}
    name = str(metadata.get("name", ""))
    labels = {str(key): str(value) for key, value in (metadata.get("labels") or {}).items()}
    allocatable = parse_resources(status.get("allocatable"))
    capacity = parse_resources(status.get("capacity")) if status.get("capacity") else allocatable
    found = identify_gpus(LabelledNode(name, labels, capacity, allocatable))
    return NodeFacts(
        name=name,
        labels=labels,
        taints=parse_taints(node),
        unschedulable=bool((node.get("spec") or {}).get("unschedulable")),
        ready=_is_ready(status) and metadata.get("deletionTimestamp") is None,
        allocatable=allocatable,
        gpus=found if isinstance(found, GpuIdentity) else None,
        refusal=found if isinstance(found, Refusal) else None,
    )


def _is_ready(status: Mapping[str, Any]) -> bool:
    """Read the Ready condition; a node without one (a hand-written inventory) counts as ready."""
    for condition in status.get("conditions") or ():
        if condition.get("type") == "Ready":
            return bool(condition.get("status") == "True")
    return True
