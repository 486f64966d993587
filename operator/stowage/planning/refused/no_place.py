"""Why a shape has no place in the snapshot, in one sentence that names the closest nodes.

The same rules as in the search for places, so the two can never disagree; only nodes that are named are put into
words, since a cluster has thousands of others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.hardware.best_fit import spanning_domain
from stowage.hardware.inventory import QuotaRoom
from stowage.hardware.room import NodeRoom, Obstacle, PodNeeds, obstacle, obstacle_reason

# From nearly placeable to hopeless: the reason of a refusal is the one closest to working.
_CLOSENESS: Final[Mapping[Reason, int]] = {
    Reason.GPUS_GRANTED_ELSEWHERE: 0,
    Reason.INSUFFICIENT_NODE_RESOURCES: 1,
    Reason.INSUFFICIENT_GPUS: 2,
    Reason.NODES_UNSCHEDULABLE: 3,
}
_NODES_NAMED: Final = 3


def why_nowhere(
    needs: PodNeeds, nodes: tuple[NodeRoom, ...], quotas: Iterable[QuotaRoom], what: str
) -> Refusal:
    """Explain why not even one such pod can be placed on these nodes; `what` names the shape."""
    found = [(node, reason) for node in nodes if (reason := obstacle_reason(node, needs)) is not None]
    quota = _short_quota(needs, quotas)
    if quota is not None and len(found) < len(nodes):
        return quota
    if not found:
        return Refusal(Reason.INSUFFICIENT_GPUS, f"The cluster has no node for {what}.")
    ranked = list(_one_per_pool(sorted(found, key=lambda pair: _closeness(pair[0], pair[1], needs))))
    hurdles = [(node, obstacle(node, needs)) for node, _ in ranked[:_NODES_NAMED]]
    words = "; ".join(
        f"{_name(node)} {hurdle.words}{_taken(node, hurdle)}"
        for node, hurdle in hurdles
        if hurdle is not None
    )
    more = f"; and {len(ranked) - _NODES_NAMED} more nodes" if len(ranked) > _NODES_NAMED else ""
    return Refusal(ranked[0][1], f"No node has room for {what}: {words}{more}.")


def why_not_spanning(
    needs: PodNeeds,
    nodes: tuple[NodeRoom, ...],
    quotas: Iterable[QuotaRoom],
    nodes_per_replica: int,
    what: str,
) -> Refusal:
    """Explain why not even one replica can span so many of these nodes; `what` names what each has to have."""
    with_room = [node for node in nodes if obstacle_reason(node, needs) is None]
    if not with_room:
        return why_nowhere(needs, nodes, quotas, what)
    quota = _short_quota(replace(needs, requests=needs.requests.times(nodes_per_replica)), quotas)
    if quota is not None:
        return quota
    domain, most = Counter(map(spanning_domain, with_room)).most_common(1)[0]
    where = f" ({domain})" if domain else ""
    return Refusal(
        Reason.INSUFFICIENT_GPUS,
        f"No {nodes_per_replica} nodes of one zone or NVLink fabric have room for {what}; {most}{where} at most.",
    )


def _one_per_pool(ranked: Iterable[tuple[NodeRoom, Reason]]) -> Iterator[tuple[NodeRoom, Reason]]:
    """Leave out all but the first of a pool's nodes to come, which are alike."""
    seen: set[str] = set()
    for node, reason in ranked:
        pool = node.facts.pool
        if pool is None or pool not in seen:
            yield node, reason
        if pool is not None:
            seen.add(pool)


def _name(node: NodeRoom) -> str:
    pool = node.facts.pool
    return node.facts.name if pool is None else f"a new node of pool {pool}"


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


def _closeness(node: NodeRoom, reason: Reason, needs: PodNeeds) -> tuple[bool, int, str]:
    """Order hurdles from nearly placeable to hopeless; a node that is too small for the shape comes last."""
    return (needs.gpus > node.total_gpus, _CLOSENESS.get(reason, len(_CLOSENESS)), node.facts.name)


def _taken(node: NodeRoom, hurdle: Obstacle) -> str:
    """Say who holds the GPUs, the greatest holder first."""
    if hurdle.reason is not Reason.INSUFFICIENT_GPUS or not node.holders:
        return ""
    ordered = sorted(Counter(dict(node.holders)).items(), key=lambda pair: (-pair[1], pair[0]))
    return " (" + ", ".join(f"{count} held by {who}" for who, count in ordered[:2]) + ")"
