"""Shapes and devices for tests of the memory model."""

from __future__ import annotations

from typing import Any

from stowage.memory.budget import ledger
from stowage.memory.device import DeviceMemory
from stowage.memory.ledger import Ledger
from stowage.memory.release.engine_version import EngineVersion, engine_version
from stowage.memory.shape import EngineShape
from stowage.model.profile import ModelProfile

GIB = 2**30
MIB = 2**20


def version(name: str = "0.32.0") -> EngineVersion:
    """Look a release up that must be known."""
    found = engine_version(name)
    assert isinstance(found, EngineVersion), found
    return found


def gpu(total_gib: float, name: str = "NVIDIA-Test", capability: tuple[int, int] = (8, 0)) -> DeviceMemory:
    """Make a GPU of the given memory as CUDA sees it."""
    return DeviceMemory(name, int(total_gib * GIB), capability)


A10G = gpu(22.06, "NVIDIA-A10G", (8, 6))
L4 = gpu(22.05, "NVIDIA-L4", (8, 9))
T4 = gpu(14.56, "Tesla-T4", (7, 5))
A100 = gpu(79.25, "NVIDIA-A100-SXM4-80GB")
A100_40 = gpu(39.49, "NVIDIA-A100-SXM4-40GB")
H100 = gpu(79.22, "NVIDIA-H100-80GB-HBM3", (9, 0))
B200 = gpu(178.4, "NVIDIA-B200", (10, 0))
NODE = DeviceMemory("cpu-node", 16 * GIB, (0, 0), "CPU")


def shape(**changes: Any) -> EngineShape:
    """Make the shape of a small GPU's server defaults; `changes` replace fields."""
    fields: dict[str, Any] = {
        "tensor_parallel_size": 1,
        "pipeline_parallel_size": 1,
        "dtype": "auto",
        "kv_cache_dtype": "auto",
        "gpu_memory_utilization": 0.92,
        "max_model_len": 2048,
        "max_num_seqs": 256,
        "max_num_batched_tokens": 2048,
        "enforce_eager": False,
        "kv_cache_memory_bytes": None,
    }
    return EngineShape(**{**fields, **changes})


def ledger_of(profile: ModelProfile, device: DeviceMemory, release: str = "0.32.0", **changes: Any) -> Ledger:
    """Make the ledger of a shape that the engine accepts."""
    answer = ledger(profile, shape(**changes), device, version(release))
    assert isinstance(answer, Ledger), answer
    return answer
