"""The shapes that are tried on a group of nodes: every way to split the model that the constraints allow.

Tensor, pipeline, data and expert parallel, on one node and over several; pins leave only what they name. Data
parallelism inside a replica is tried for mixtures of experts alone: for any other model it is the same as more
replicas. A replica takes a divisor or a power of two of a node's GPUs, so that nodes fill up without an odd rest.
Nothing is left out for being slow or expensive here; that is the search's to prove.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from stowage.api.v1alpha1 import LLMDeploymentSpec, Toggle
from stowage.memory.constraints import has_experts, tensor_parallel_sizes
from stowage.model.profile import ModelProfile
from stowage.planning.groups import GpuGroup

_MOST_NODES: Final = 4
"""Nodes that one replica is spread over at most; beyond, hand-over between nodes is not measured at all."""

_DATA_SIZES: Final = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One shape: a replica on GPUs of one group, `gpus` in all, the same number on each of `nodes` nodes."""

    group: GpuGroup
    tensor_parallel_size: int
    pipeline_parallel_size: int = 1
    data_parallel_size: int = 1
    expert_parallel: bool = False
    nodes: int = 1

    @property
    def gpus(self) -> int:
        """GPUs of one replica."""
        return self.tensor_parallel_size * self.pipeline_parallel_size * self.data_parallel_size

    @property
    def gpus_per_node(self) -> int:
        """GPUs that one replica takes on each of its nodes."""
        return self.gpus // self.nodes

    @property
    def words(self) -> str:
        """The parallelism alone, as in `tp4 pp2`."""
        return split_words(
            self.tensor_parallel_size,
            self.pipeline_parallel_size,
            self.data_parallel_size,
            expert_parallel=self.expert_parallel,
        )

    def __str__(self) -> str:
        where = f" over {self.nodes} nodes" if self.nodes > 1 else ""
        return f"{self.words} on {self.group.gpu.name}{where}"


@dataclass(frozen=True, slots=True)
class _Pins:
    """What the spec leaves free of one model: None means any."""

    profile: ModelProfile
    tensor: int | None
    pipeline: int | None
    data: int | None
    expert: Toggle

    @property
    def any(self) -> bool:
        """Whether a size is pinned."""
        return bool(self.tensor or self.pipeline or self.data)

    def tensor_sizes(self, data: int, *, expert: bool) -> tuple[int, ...]:
        """Give the sizes that split the model beside `data` ranks; a pin is taken as it is, to be refused later."""
        return (self.tensor,) if self.tensor else tensor_parallel_sizes(self.profile, data, expert)

    def data_sizes(self, most: int) -> tuple[int, ...]:
        """Give the sizes of data parallelism inside a replica of at most so many GPUs."""
        if self.data:
            return (self.data,)
        return tuple(size for size in _DATA_SIZES if size <= most) if has_experts(self.profile) else (1,)

    def pipeline_sizes(self, most: int) -> tuple[int, ...]:
        """Give the numbers of stages of at most so many GPUs."""
        if self.pipeline:
            return (self.pipeline,)
        return tuple(range(1, most + 1)) if self.profile.supports_pipeline else (1,)

    def expert_choices(self) -> tuple[bool, ...]:
        """Say whether experts are split, spread, or both are tried."""
        if self.expert is Toggle.ENABLED:
            return (True,)
        both = has_experts(self.profile) and self.expert is Toggle.AUTO
        return (False, True) if both else (False,)


def candidates(
    groups: Iterable[GpuGroup], profile: ModelProfile, spec: LLMDeploymentSpec
) -> tuple[Candidate, ...]:
    """List the shapes of every group."""
    parallel = spec.parallelism
    pins = _Pins(profile, parallel.tensor, parallel.pipeline, parallel.data, parallel.expert_parallel)
    found: list[Candidate] = []
    for group in groups:
        largest = group.most_gpus_on_a_node
        whole_nodes = sum(node.total_gpus >= largest for node in group.nodes)
        sizes = _sizes(largest)
        here = [
            placed
            for split in _splits(pins, max(1, largest))
            if (placed := _spread(group, split, largest, whole_nodes)) is not None
            and (pins.any or placed.nodes > 1 or placed.gpus in sizes)
        ]
        found += here or _pinned(group, pins)
    return tuple(found)


def split_words(tensor: int, pipeline: int, data: int, *, expert_parallel: bool) -> str:
    """Name a split, as in `tp4`, `tp4 pp2` or `tp1 dp8 ep`."""
    parts = [f"tp{tensor}"]
    if pipeline > 1:
        parts.append(f"pp{pipeline}")
    if data > 1:
        parts.append(f"dp{data}")
    return " ".join([*parts, *(["ep"] if expert_parallel else [])])


def _sizes(largest: int) -> frozenset[int]:
    """Give the GPUs of a replica that leave no odd rest on a node: its divisors, and powers of two."""
    powers = (2**power for power in range(largest.bit_length()))
    divisors = (size for size in range(1, largest + 1) if largest % size == 0)
    return frozenset((*powers, *divisors))


def _splits(pins: _Pins, largest: int) -> Iterator[tuple[int, int, int, bool]]:
    """Give (tensor, pipeline, data, expert parallel) of the GPUs of one node and of several."""
    limit = largest * _MOST_NODES
    for expert in pins.expert_choices():
        for data in pins.data_sizes(limit):
            for tensor in pins.tensor_sizes(data, expert=expert):
                if expert and tensor * data == 1 and pins.expert is Toggle.AUTO:
                    continue
                for pipeline in pins.pipeline_sizes(limit):
                    mixed = data > 1 and pipeline > 1 and not (pins.data and pins.pipeline)
                    if tensor * data * pipeline <= limit and not mixed:
                        yield tensor, pipeline, data, expert


def _spread(
    group: GpuGroup, split: tuple[int, int, int, bool], largest: int, whole_nodes: int
) -> Candidate | None:
    """Put a split on one node where it fits, else on whole nodes of the group's largest size, else nowhere."""
    tensor, pipeline, data, expert = split
    gpus = tensor * pipeline * data
    if gpus <= largest:
        return Candidate(group, tensor, pipeline, data, expert)
    if not largest or gpus % largest or not (largest % tensor == 0 or tensor % largest == 0):
        return None
    nodes = gpus // largest
    return Candidate(group, tensor, pipeline, data, expert, nodes) if nodes <= whole_nodes else None


def _pinned(group: GpuGroup, pins: _Pins) -> list[Candidate]:
    """Give the shape that pins ask for although no node has so many GPUs, so that a refusal can say so."""
    if not pins.any:
        return []
    expert = pins.expert is Toggle.ENABLED
    return [Candidate(group, pins.tensor or 1, pins.pipeline or 1, pins.data or 1, expert)]
