"""The bottleneck verdict: what a phase spends its time on, in the five words that decide what would help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Bound(StrEnum):
    """What the time of a phase goes into.

    KV capacity is no time in a step: it keeps the batch small, and requests waiting.
    """

    COMPUTE = "Compute"
    MEMORY_BANDWIDTH = "MemoryBandwidth"
    KV_CAPACITY = "KvCapacity"
    INTERCONNECT = "Interconnect"
    OVERHEAD = "Overhead"


@dataclass(frozen=True, slots=True)
class Boundness:
    """The verdict on one phase.

    `intensity_flops_per_byte` is the phase's arithmetic over the bytes it moves to and from memory,
    `ridge_flops_per_byte` the intensity at which this GPU turns from bandwidth to compute for the formats that
    the phase computes in. `shares` of time add up to 1.
    """

    intensity_flops_per_byte: float
    ridge_flops_per_byte: float
    bound: Bound
    shares: Mapping[Bound, float]


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """What limits the replica as a whole: the phase it is in most, what bounds that phase, and the sentence."""

    phase: str
    bound: Bound
    share: float
    sentence: str
