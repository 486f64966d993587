"""The devices that the stand-in believes it has: what `nvidia-smi` on the PATH lists, else the CPU.

Why: on a simulated GPU node the test tool puts a fake `nvidia-smi` on the PATH; the stand-in asks it as
anybody would, so that GPU count and memory come from one place.
It must never open a real device.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Machine:
    """GPUs by their total memory in bytes; none means the CPU build."""

    gpu_total_bytes: tuple[int, ...]

    @property
    def device_name(self) -> str:
        """How vLLM names the device in its KV cache line."""
        return "GPU" if self.gpu_total_bytes else "CPU"

    @property
    def default_block_size(self) -> int:
        """Tokens per KV block when no option names it (vLLM 0.32: 16 on CUDA, 128 on CPU)."""
        return 16 if self.gpu_total_bytes else 128


def detect() -> Machine:
    """Ask `nvidia-smi`; a missing or failing one means that there is no GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return Machine(())
    command = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    if answer.returncode != 0:
        return Machine(())
    return Machine(tuple(int(float(line)) * MIB for line in answer.stdout.splitlines() if line.strip()))
