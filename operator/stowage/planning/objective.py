"""What makes one fitting shape better than another: it costs less, by a documented proxy.

Without prices the proxy is the GPU memory that a replica occupies (nominal gigabytes of the card times number of
GPUs), which is roughly how clouds grade their prices. Among equals: fewer GPUs, which talk less; NVLink before PCIe
where there is talk; then the card with the lower product of compute and bandwidth, so that fast cards stay free for
who needs them. Equal inputs give the same order, whatever the order of the nodes.
"""

from __future__ import annotations

from typing import Final

from stowage.hardware.gpu import Gpu
from stowage.planning.candidates import Candidate

_NOMINAL_STEP_BYTES: Final = 4 * 2**30

CostKey = tuple[int, int, bool, float, str]


def nominal_gigabytes(gpu: Gpu) -> int:
    """Give the memory size that the card is sold with: NVML's total rounded up to a multiple of 4 GiB."""
    return -(-gpu.nvml_memory_bytes // _NOMINAL_STEP_BYTES) * 4


def replica_gigabytes(candidate: Candidate) -> int:
    """Give the nominal GPU memory that one replica occupies."""
    return nominal_gigabytes(candidate.group.gpu) * candidate.tensor_parallel_size


def cost_key(candidate: Candidate) -> CostKey:
    """Give the sort key of a candidate; the smallest is the cheapest."""
    gpu, size = candidate.group.gpu, candidate.tensor_parallel_size
    speed = (gpu.bf16_flops or gpu.fp16_flops) / 1e12 * gpu.memory_bytes_per_second / 1e9
    labels = ",".join(f"{key}={value}" for key, value in sorted(candidate.group.node_selector.items()))
    slow_link = size > 1 and not gpu.link.startswith("NVLink")
    return (replica_gigabytes(candidate), size, slow_link, speed, f"{gpu.name} {labels}")
