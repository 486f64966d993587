"""What it costs ranks to hand each other vectors: a latency, and bytes over the slowest link between them.

A node's own link (NVLink, Infinity Fabric) takes the engine's one-shot or two-shot all-reduce, or lets switches
that can add do the sums, whichever is faster for the size; over PCIe or the network a tree goes up and down. Only
the former is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log2
from typing import Final

from stowage.hardware.gpu import Gpu
from stowage.performance.efficiencies import Efficiencies

NETWORK_BYTES_PER_SECOND: Final = 50e9
"""400 Gb/s for each GPU: one ConnectX-7 port, as DGX and HGX systems have for each GPU. Assumed, not known."""

PCIE_BYTES_PER_SECOND: Final = 64e9
"""PCIe 5.0 x16, which cards have beside a bridge that does not reach all of a node."""

_HOP_FACTOR: Final = 1.0
"""Latency of one hop over PCIe, in all-reduce latencies over a node's own link; unmeasured."""

_NETWORK_LATENCY_FACTOR: Final = 3.0

_SWITCHES_ADD_SINCE: Final = (9, 0)
"""Compute capability of the first GPUs whose NVSwitch adds (NVLink SHARP, 2022; NCCL: NVLS, vLLM: multimem)."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """The way between the `ranks` of one group."""

    ranks: int
    bytes_per_second: float
    latency_seconds: float
    through_host: bool
    switch_adds: bool = False

    def all_reduce_seconds(self, size_bytes: float) -> float:
        """Give the time that summing vectors of that many bytes over all ranks takes."""
        others, rate = self.ranks - 1, self.bytes_per_second
        if others == 0:
            return 0.0
        both_ways = 2 * others / self.ranks * size_bytes / rate
        if self.through_host:
            return 2 * log2(self.ranks) * self.latency_seconds + both_ways
        if self.switch_adds:
            # A rank sends all once and its own part of the sum once more, however many others there are.
            both_ways = min(both_ways, (1 + 1 / self.ranks) * size_bytes / rate)
        return min(self.latency_seconds + others * size_bytes / rate, 2 * self.latency_seconds + both_ways)

    def gather_seconds(self, size_bytes: float) -> float:
        """Give the time until every rank has the vectors of all, `size_bytes` together."""
        others = self.ranks - 1
        if others == 0:
            return 0.0
        hops = log2(self.ranks) if self.through_host else 1.0
        return hops * self.latency_seconds + others / self.ranks * size_bytes / self.bytes_per_second

    def send_seconds(self, size_bytes: float) -> float:
        """Give the time until the next rank has vectors of that many bytes."""
        return self.latency_seconds + size_bytes / self.bytes_per_second


def exchange(ranks: int, gpu: Gpu, table: Efficiencies, same_node: bool) -> Exchange:
    """Give the way between so many ranks on this GPU."""
    latency = table.all_reduce_seconds
    if not same_node:
        rate = min(NETWORK_BYTES_PER_SECOND, gpu.link_bytes_per_second)
        return Exchange(ranks, rate * table.link, _NETWORK_LATENCY_FACTOR * latency, True)
    rate = gpu.link_bytes_per_second * table.link
    if gpu.has_fast_link and ranks <= (gpu.link_reach or ranks):
        return Exchange(ranks, rate, latency, False, _switch_adds(gpu))
    if gpu.has_fast_link:
        rate = PCIE_BYTES_PER_SECOND * table.link
    return Exchange(ranks, rate, _HOP_FACTOR * latency, True)


def _switch_adds(gpu: Gpu) -> bool:
    switched = gpu.link.startswith("NVLink") and gpu.link_reach is None
    return switched and gpu.compute_capability >= _SWITCHES_ADD_SINCE
