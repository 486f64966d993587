"""The memory that a rank runs in: a GPU as CUDA sees it, or the memory of a CPU node."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """One device. `total_bytes` is what CUDA reports as total (not NVML's), or a CPU node's memory.

    `hardware` is "GPU" or "CPU"; `compute_capability` is (0, 0) for CPUs.
    """

    name: str
    total_bytes: int
    compute_capability: tuple[int, int]
    hardware: str = "GPU"

    @property
    def is_cpu(self) -> bool:
        """Whether the engine's CPU backend runs here."""
        return self.hardware == "CPU"
