"""Where the replicas of a shape can go in the snapshot, and why not where they cannot.

Whole replicas on single nodes: the tightest place first, so that eight-GPU nodes stay whole while a smaller
place exists. Quotas of the namespace count like room. The scheduler decides in the end; what is promised
here is only that a place exists.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.api.v1alpha1 import LLMDeploymentSpec
from stowage.hardware.inventory import Inventory, QuotaRoom, placement_order
from stowage.hardware.room import NodeRoom, Obstacle, PodNeeds, obstacle, pods_that_fit
from stowage.hardware.taints import GPU_TOLERATION, Toleration
from stowage.planning.result import Plan

# From nearly placeable to hopeless: the reason of a refusal is the one closest to working.
_CLOSEST_FIRST: Final = (
    Reason.GPUS_GRANTED_ELSEWHERE,
    Reason.INSUFFICIENT_NODE_RESOURCES,
    Reason.INSUFFICIENT_GPUS,
    Reason.NODES_UNSCHEDULABLE,
)
_NODES_NAMED: Final = 3


def place_replicas(plan: Plan, inventory: Inventory, count: int) -> tuple[str, ...]:
    """Name the nodes that could take up to `count` replicas of a plan, one entry per replica."""
    return places(needs_of(plan), inventory.nodes, inventory.quotas, count)


def needs_of(plan: Plan) -> PodNeeds:
    """Give what one replica of a plan asks of a node."""
    return PodNeeds(plan.requests, plan.node_selector, plan.tolerations, plan.gpu_resource)


def places(
    needs: PodNeeds, nodes: Iterable[NodeRoom], quotas: Iterable[QuotaRoom], count: int
) -> tuple[str, ...]:
    """Name those of the nodes that could take up to `count` such pods, the tightest place first."""
    allowed = [quota.pods_that_fit(needs.requests) for quota in quotas]
    left = min([count, *(limit for limit in allowed if limit is not None)])
    options = [(node, room) for node in nodes if (room := pods_that_fit(node, needs)) > 0]
    options.sort(key=lambda option: placement_order(option[0], needs))
    if not needs.gpus:
        return _spread(options, left)
    names: list[str] = []
    for node, room in options:
        names += [node.facts.name] * min(room, left - len(names))
    return tuple(names)


def tolerations_of(spec: LLMDeploymentSpec, with_gpu: bool) -> tuple[Toleration, ...]:
    """Give what the pods tolerate: what the spec lists and, with GPUs, the usual taint of GPU nodes."""
    stated = (
        Toleration(
            each.key or "",
            str(each.operator.value),
            each.value or "",
            each.effect.value if each.effect else "",
        )
        for each in spec.hardware.tolerations
    )
    return (*((GPU_TOLERATION,) if with_gpu else ()), *stated)


def why_nowhere(
    needs: PodNeeds, nodes: tuple[NodeRoom, ...], quotas: Iterable[QuotaRoom], what: str
) -> Refusal:
    """Explain why not even one such pod can be placed on these nodes; `what` names the shape."""
    found = [(node, hurdle) for node in nodes if (hurdle := obstacle(node, needs)) is not None]
    quota = _short_quota(needs, quotas)
    if quota is not None and len(found) < len(nodes):
        return quota
    if not found:
        return Refusal(Reason.INSUFFICIENT_GPUS, f"The cluster has no node for {what}.")
    ranked = sorted(found, key=lambda pair: _closeness(pair[0], pair[1], needs))
    words = "; ".join(
        f"{node.facts.name} {hurdle.words}{_taken(node, hurdle)}" for node, hurdle in ranked[:_NODES_NAMED]
    )
    more = f"; and {len(found) - _NODES_NAMED} more nodes" if len(found) > _NODES_NAMED else ""
    return Refusal(ranked[0][1].reason, f"No node has room for {what}: {words}{more}.")


def _spread(options: list[tuple[NodeRoom, int]], count: int) -> tuple[str, ...]:
    """Deal replicas out one by one, as the scheduler spreads pods that ask for no devices."""
    left = {node.facts.name: room for node, room in options}
    names: list[str] = []
    while len(names) < count and any(left.values()):
        for name, room in left.items():
            if room and len(names) < count:
                left[name] -= 1
                names.append(name)
    return tuple(names)


def _short_quota(needs: PodNeeds, quotas: Iterable[QuotaRoom]) -> Refusal | None:
    for quota in quotas:
        key = quota.lacking(needs.requests)
        if key is not None:
            return Refusal(
                Reason.QUOTA_EXCEEDED,
                f"ResourceQuota {quota.name} of namespace {quota.namespace} leaves {_amount(key, quota.room)} "
                f"of {key}, less than one replica needs.",
                "Raise the quota, or choose a smaller shape.",
            )
    return None


def _amount(key: str, room: Mapping[str, int]) -> str:
    left = max(0, room[key])
    if key.endswith("cpu"):
        return f"{left / 1000:g} cores"
    return f"{left / 2**30:.1f} GiB" if key.endswith("memory") else str(left)


def _closeness(node: NodeRoom, hurdle: Obstacle, needs: PodNeeds) -> tuple[bool, int, str]:
    """Order hurdles from nearly placeable to hopeless; a node that is too small for the shape comes last."""
    known = {reason: place for place, reason in enumerate(_CLOSEST_FIRST)}
    return (needs.gpus > node.total_gpus, known.get(hurdle.reason, len(known)), node.facts.name)


def _taken(node: NodeRoom, hurdle: Obstacle) -> str:
    """Say who holds the GPUs, the greatest holder first."""
    if hurdle.reason is not Reason.INSUFFICIENT_GPUS or not node.holders:
        return ""
    ordered = sorted(Counter(dict(node.holders)).items(), key=lambda pair: (-pair[1], pair[0]))
    return " (" + ", ".join(f"{count} held by {who}" for who, count in ordered[:2]) + ")"
