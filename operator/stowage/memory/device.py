"""The memory that a rank runs in: a GPU as CUDA sees it, or the memory of a CPU node."""

from __future__ import annotations

from dataclasses import dataclass

from stowage.hardware.gpu import Gpu


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """One device. `total_bytes` is what CUDA reports as total (not NVML's), or a CPU node's memory.

    `hardware` is "GPU" or "CPU"; `compute_capability` is (0, 0) for CPUs. `switched`: the GPUs of a node reach
    each other through switches (NVSwitch), which newer ones use to reduce and to multicast.
    """

    name: str
    total_bytes: int
    compute_capability: tuple[int, int]
    hardware: str = "GPU"
    switched: bool = False

    @staticmethod
    def of_gpu(gpu: Gpu, total_bytes: int | None = None) -> DeviceMemory:
        """Give the memory of a GPU of the catalog; `total_bytes` where it was measured."""
        total = gpu.cuda_total_bytes if total_bytes is None else total_bytes
        return DeviceMemory(gpu.name, total, gpu.compute_capability, "GPU", gpu.has_switch)

    @property
    def is_cpu(self) -> bool:
        """Whether the engine's CPU backend runs here."""
        return self.hardware == "CPU"
