"""Why no GPU of the cluster comes into question: none there, none allowed, none that can be planned with.

Only words: what rules a node or a group out is decided where it is read.
"""

from __future__ import annotations

from collections.abc import Sequence

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.hardware.inventory import Inventory
from stowage.hardware.room import matches_selector
from stowage.planning.groups import GpuGroup, gpu_groups
from stowage.planning.result import PlanRequest, Rejection


def unusable_nodes(request: PlanRequest, inventory: Inventory) -> tuple[Rejection, ...]:
    """Name the nodes that the spec allows and whose GPUs cannot be used."""
    selector = request.spec.hardware.node_selector
    return tuple(
        Rejection(f"node {node.facts.name}", node.facts.refusal.reason, node.facts.refusal.sentence)
        for node in inventory.nodes
        if node.facts.refusal is not None and matches_selector(node.facts, selector)
    )


def no_gpu(
    request: PlanRequest, inventory: Inventory, groups: Sequence[GpuGroup], found: Sequence[Rejection]
) -> Refusal:
    """Say why no GPU of the cluster comes into question."""
    if not any(node.facts.is_gpu_node for node in inventory.nodes):
        return Refusal(
            Reason.NO_GPUS,
            "The cluster has no node with GPUs.",
            "Add GPU nodes, or set spec.hardware.class: CPU to try Stowage without GPUs.",
        )
    all_groups = gpu_groups(inventory, request.spec.model_copy(update={"hardware": _unrestricted(request)}))
    names = (
        ", ".join(dict.fromkeys(group.gpu.name for group in all_groups)) or "none that can be planned with"
    )
    hardware = request.spec.hardware
    closest = [each for each in found if each.reason in (Reason.UNSUPPORTED_DTYPE, Reason.PIN_CONFLICT)]
    if hardware.gpus and not closest:
        wanted = ", ".join(hardware.gpus)
        return Refusal(
            Reason.NO_MATCHING_GPU,
            f"No usable node has a GPU of spec.hardware.gpus ({wanted}); the cluster has {names}.",
            "Add such nodes, or allow other GPUs.",
        )
    if not groups and not found:
        labels = ", ".join(f"{key}={value}" for key, value in sorted(hardware.node_selector.items()))
        return Refusal(
            Reason.NO_MATCHING_GPU,
            f"No GPU node has the labels of spec.hardware.nodeSelector ({labels}); the cluster has {names}.",
            "Correct the labels.",
        )
    more = f" ({len(found) - 1} more GPU nodes or types cannot be used either.)" if len(found) > 1 else ""
    first = (closest or found)[0]
    return Refusal(first.reason, f"{first.message}{more}")


def _unrestricted(request: PlanRequest) -> object:
    return request.spec.hardware.model_copy(update={"node_selector": {}, "gpus": ()})
