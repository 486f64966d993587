"""A candidate with what it asks of a node, where it can go now, and what it costs at least.

Places are asked for once for each group and number of GPUs, since shapes of the same size ask the same of a node.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.hardware.inventory import Inventory
from stowage.hardware.room import PodNeeds
from stowage.planning.groups import GpuGroup
from stowage.planning.placement import (
    placement_at,
    places,
    places_spanning,
    to_come,
    tolerations_of,
    why_not_spanning,
    why_nowhere,
)
from stowage.planning.requests import ContainerNeeds, gpu_needs
from stowage.planning.result import Placement, PlanRequest
from stowage.planning.search.candidate import Candidate


@dataclass(frozen=True, slots=True)
class Option:
    """A candidate with what one of its pods needs, the places in order, one entry per pod, or why there is none.

    `limit` are the replicas that the spec's own limits leave; `hourly` is what one replica is ranked by.
    """

    candidate: Candidate
    needs: PodNeeds
    container: ContainerNeeds
    node_names: tuple[str, ...]
    nowhere: Refusal | None
    limit: int | None
    hourly: float

    @property
    def placed(self) -> int:
        """Whole replicas that have a place."""
        return len(self.node_names) // self.candidate.nodes

    def to_come(self, replicas: int) -> int:
        """Count the places of so many replicas that are on nodes which do not exist yet."""
        return to_come(self._names(replicas))

    def placement(self, replicas: int) -> Placement:
        """Say where up to so many replicas go, and when."""
        group = self.candidate.group
        return placement_at(self._names(replicas), group.nodes, f"GPU model known by {group.evidence}")

    def _names(self, replicas: int) -> tuple[str, ...]:
        return self.node_names[: replicas * self.candidate.nodes]


@dataclass(slots=True)
class Options:
    """Makes options for one request on one snapshot; `most_replicas` bounds the places that are looked for."""

    request: PlanRequest
    inventory: Inventory
    most_replicas: int
    _needs: dict[tuple[int, int], tuple[ContainerNeeds, PodNeeds]] = field(default_factory=dict)
    _places: dict[tuple[int, int, int], tuple[tuple[str, ...], Refusal | None]] = field(default_factory=dict)

    def of(self, candidate: Candidate) -> Option:
        """Make the option of a candidate."""
        spec, group = self.request.spec, candidate.group
        container, needs = self._needed(group, candidate.gpus_per_node)
        hourly = self.request.prices.rank(group.gpu) * candidate.gpus
        limit = spec.hardware.max_gpus // candidate.gpus if spec.hardware.max_gpus is not None else None
        above = self._above_limit(candidate)
        if above is not None:
            return Option(candidate, needs, container, (), above, limit, hourly)
        names, nowhere = self._placed(group, needs, candidate)
        return Option(candidate, needs, container, names, nowhere, limit, hourly)

    def _needed(self, group: GpuGroup, size: int) -> tuple[ContainerNeeds, PodNeeds]:
        key = (id(group), size)
        if key not in self._needs:
            spec = self.request.spec
            container = gpu_needs(size, group.resource_name, spec)
            selector = {**spec.hardware.node_selector, **group.node_selector}
            tolerations = tolerations_of(spec, True)
            self._needs[key] = (
                container,
                PodNeeds(container.requests, selector, tolerations, group.resource_name),
            )
        return self._needs[key]

    def _placed(
        self, group: GpuGroup, needs: PodNeeds, candidate: Candidate
    ) -> tuple[tuple[str, ...], Refusal | None]:
        key = (id(group), candidate.gpus_per_node, candidate.nodes)
        if key not in self._places:
            quotas, count, nodes = self.inventory.quotas, self.most_replicas, candidate.nodes
            if nodes == 1:
                names = places(needs, group.arranged or group.nodes, quotas, count)
            else:
                spans = places_spanning(needs, group.arranged or group.nodes, quotas, count, nodes)
                names = tuple(name for span in spans for name in span)
            nowhere = None
            if len(names) < candidate.nodes:
                what = f"{candidate.gpus_per_node}x {group.gpu.name}"
                if nodes == 1:
                    nowhere = why_nowhere(needs, group.nodes, quotas, f"{what} on one node")
                else:
                    nowhere = why_not_spanning(needs, group.nodes, quotas, nodes, f"{what} on each")
            self._places[key] = names, nowhere
        return self._places[key]

    def _above_limit(self, candidate: Candidate) -> Refusal | None:
        hardware, size = self.request.spec.hardware, candidate.gpus
        if hardware.max_gpus_per_replica is not None and size > hardware.max_gpus_per_replica:
            return Refusal(
                Reason.GPU_LIMIT_REACHED,
                f"{candidate} takes {size} GPUs per replica, more than spec.hardware.maxGPUsPerReplica "
                f"({hardware.max_gpus_per_replica}).",
            )
        wanted = size * max(1, self.request.replicas)
        if hardware.max_gpus is not None and wanted > hardware.max_gpus:
            return Refusal(
                Reason.GPU_LIMIT_REACHED,
                f"{self.request.replicas} replicas of {candidate} take {wanted} GPUs, more than "
                f"spec.hardware.maxGPUs ({hardware.max_gpus}).",
            )
        return None
