"""Node pools that an autoscaler can grow: what their next node would look like, and how many more there can be.

A pool is declared by a person, since what a group can grow to is written in the cloud and not in the cluster. Only
labels that are declared are relied on: an autoscaler that is asked for a node by a label it does not know of adds
none. Pure: the declaration comes in as plain data, the nodes that exist as facts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from stowage.api.conditions import Reason
from stowage.hardware.gpu_identity import GpuIdentity
from stowage.hardware.node import NodeFacts
from stowage.hardware.room import matches_selector

_PRODUCT: Final = "nvidia.com/gpu.product"
_MARK: Final = "/new-"


@dataclass(frozen=True, slots=True)
class Pool:
    """A group of alike nodes with whole GPUs that can have up to `max_nodes` nodes.

    `labels` are on every node of it and on no other node. `to_come` are its nodes if it had none yet.
    """

    name: str
    gpus: GpuIdentity
    max_nodes: int
    labels: Mapping[str, str]
    to_come: tuple[NodeFacts, ...]

    def has(self, facts: NodeFacts) -> bool:
        """Whether a node belongs to the pool."""
        return matches_selector(facts, self.labels)


def name_to_come(pool: str, number: int) -> str:
    """Name a node that does not exist yet; no real node can be named like this."""
    return f"{pool}{_MARK}{number}"


def pool_of(node_name: str) -> str | None:
    """The pool that would have to grow for this node to exist; None for a node that exists."""
    pool, mark, _ = node_name.partition(_MARK)
    return pool if mark else None


def nodes_to_come(pools: Iterable[Pool], present: Sequence[NodeFacts]) -> Iterator[NodeFacts]:
    """The nodes that pools could grow by now. A node that has no GPUs to offer yet still counts as one of them."""
    for pool in pools:
        there = sum(pool.has(facts) and not _is_starting(facts) for facts in present)
        yield from pool.to_come[: max(0, pool.max_nodes - there)]


def with_pool_gpus(facts: NodeFacts, pools: Iterable[Pool]) -> NodeFacts:
    """Believe the declaration of a node's pool where no label of the node says which GPUs it has."""
    refusal = facts.refusal
    if refusal is None or refusal.reason is not Reason.UNKNOWN_GPU or _PRODUCT in facts.labels:
        return facts
    for pool in pools:
        count = facts.allocatable.count(pool.gpus.resource_name)
        if count and pool.has(facts):
            return replace(facts, gpus=replace(pool.gpus, count=count), refusal=None)
    return facts


def _is_starting(facts: NodeFacts) -> bool:
    """Whether a new node's device plugin has not said yet what the node has."""
    return facts.gpus is None and (facts.refusal is None or facts.refusal.reason is Reason.INSUFFICIENT_GPUS)
