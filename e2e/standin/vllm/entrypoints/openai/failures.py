"""Failures at start, in the words of vLLM and PyTorch, ending with their exit codes.

Why: the agent classifies an exit by these words; the stand-in produces each of them on demand.
It must never fail in words that the real engine does not use.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import NoReturn

from .capacity import Capacity, gib, too_small_message
from .machine import Machine
from .startup_log import say
from .steering import Steering

_GIB = 1 << 30


def fail(
    message: str, process: str = "EngineCore", error: str = "ValueError", exit_code: int = 1
) -> NoReturn:
    """Print a traceback's end as the engine does and leave."""
    say(process, "core.py:1321", "EngineCore failed to start.", "ERROR")
    say(process, "core.py:1321", "Traceback (most recent call last):", "ERROR")
    say(process, "core.py:1321", f"{error}: {message}", "ERROR")
    text = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
    print(f"(APIServer pid={os.getpid()}) {text}", flush=True)
    raise SystemExit(exit_code)


def before_loading(steering: Steering, machine: Machine, utilization: float) -> None:
    """Act on the faults that show before weights are loaded."""
    if steering.fault == "exit":
        time.sleep(steering.after_seconds)
        raise SystemExit(steering.exit_code)
    if steering.fault == "free_memory":
        total = _total_bytes(machine)
        fail(
            f"Free memory on device cuda:0 ({gib(total // 10)}/{gib(total)} GiB) on startup is less than "
            f"desired GPU memory utilization ({utilization}, {gib(int(total * utilization))} GiB). "
            "Decrease GPU memory utilization or reduce GPU memory used by other processes.",
            process="Worker",
        )


def while_loading(steering: Steering, machine: Machine, wait: Callable[[float], object]) -> None:
    """Act on the faults that show while weights are loaded.

    `wait` returns when the process is told to end.
    """
    if steering.fault == "slow_start":
        wait(steering.after_seconds)
    if steering.fault == "hang":
        while not wait(3600.0):
            pass
    if steering.fault == "cuda_oom_load":
        _out_of_memory(machine, 2 * _GIB)


def while_sizing(steering: Steering, machine: Machine, capacity: Capacity) -> None:
    """Act on the faults that show when the KV cache is sized."""
    if steering.fault == "cuda_oom_profile":
        _out_of_memory(machine, steering.activation_bytes)
    if steering.fault == "no_kv":
        fail(
            "No available memory for the cache blocks. "
            "Try increasing `gpu_memory_utilization` when initializing the engine."
        )
    if steering.fault == "kv_too_small":
        half = capacity.kv_bytes // 2
        fail(too_small_message(capacity.max_model_len, capacity.kv_bytes, half, capacity.max_model_len // 2))


def _out_of_memory(machine: Machine, wanted_bytes: int) -> NoReturn:
    total, free_bytes = _total_bytes(machine), wanted_bytes // 2
    fail(
        f"CUDA out of memory. Tried to allocate {wanted_bytes / _GIB:.2f} GiB. GPU 0 has a total capacity of "
        f"{total / _GIB:.2f} GiB of which {free_bytes / _GIB:.2f} GiB is free. Including non-PyTorch memory, "
        f"this process has {(total - free_bytes) / _GIB:.2f} GiB memory in use.",
        process="Worker",
        error="torch.OutOfMemoryError",
    )


def _total_bytes(machine: Machine) -> int:
    return min(machine.gpu_total_bytes, default=80 * _GIB)
