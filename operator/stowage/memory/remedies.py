"""What would have to change for a shape to fit, the cheapest change first.

Each remedy changes one setting and keeps the rest, and is proven by a ledger of its own; what does not help alone
is not offered. Also: from how many tokens on the KV cache outweighs the weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from stowage.api.refusal import Refusal
from stowage.memory.budget import ledger
from stowage.memory.constraints import tensor_parallel_sizes
from stowage.memory.device import DeviceMemory
from stowage.memory.engine_version import EngineVersion
from stowage.memory.ledger import Ledger
from stowage.memory.shape import EngineShape
from stowage.model.profile import ModelProfile

_SMALLER_CACHES: Final = ("fp8",)
"""KV dtypes that may be tried: the one that backends of most devices know."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """One setting that makes the shape fit: its name in the engine's terms, the value, and the new ledger."""

    setting: str
    value: str
    ledger: Ledger

    @property
    def sentence(self) -> str:
        """The remedy in words."""
        return f"{self.setting} {self.value} fits, with {self.ledger.kv_tokens:,} KV tokens."


@dataclass(frozen=True, slots=True)
class Crossover:
    """From where on the KV cache of a replica's rank is larger than its weights."""

    tokens: int
    requests: float
    max_model_len: int

    @property
    def sentence(self) -> str:
        """The crossover in words."""
        return (
            f"KV cache outweighs weights from {self.tokens:,} tokens on, "
            f"which is {self.requests:,.1f} requests of {self.max_model_len:,}."
        )


def crossover(shape: EngineShape, entry: Ledger) -> Crossover | None:
    """Tell from how many tokens on KV outweighs weights; None where a request has a cache of fixed size only."""
    if entry.kv_bytes_per_token <= 0:
        return None
    tokens = -(-entry.weights_allocated_bytes // entry.kv_bytes_per_token)
    return Crossover(tokens, tokens / shape.max_model_len, shape.max_model_len)


def remedies(
    profile: ModelProfile, shape: EngineShape, device: DeviceMemory, version: EngineVersion
) -> tuple[Remedy, ...]:
    """Find what makes a shape fit that does not: context, requests, tensor parallelism, KV dtype, in this order."""
    found = (
        _context(profile, shape, device, version),
        _requests(profile, shape, device, version),
        _ranks(profile, shape, device, version),
        _cache_dtype(profile, shape, device, version),
    )
    return tuple(remedy for remedy in found if remedy is not None)


def _fitting(
    profile: ModelProfile, shape: EngineShape, device: DeviceMemory, version: EngineVersion
) -> Ledger | None:
    answer = ledger(profile, shape, device, version)
    return None if isinstance(answer, Refusal) or answer.verdict == "DoesNotFit" else answer


def _context(
    profile: ModelProfile, shape: EngineShape, device: DeviceMemory, version: EngineVersion
) -> Remedy | None:
    entry = ledger(profile, shape, device, version)
    if isinstance(entry, Refusal):
        return None
    longest = entry.safe_max_model_len or entry.largest_max_model_len
    if longest is None or longest >= shape.max_model_len:
        return None
    fitting = _fitting(profile, replace(shape, max_model_len=longest), device, version)
    return None if fitting is None else Remedy("max_model_len", str(longest), fitting)


def _requests(
    profile: ModelProfile, shape: EngineShape, device: DeviceMemory, version: EngineVersion
) -> Remedy | None:
    """Search the most requests below those asked for; memory grows with their number, so halving finds it."""
    low, high, best = 1, shape.max_num_seqs - 1, None
    while low <= high:
        middle = (low + high) // 2
        fitting = _fitting(profile, replace(shape, max_num_seqs=middle), device, version)
        if fitting is None:
            high = middle - 1
        else:
            low, best = middle + 1, Remedy("max_num_seqs", str(middle), fitting)
    return best


def _ranks(
    profile: ModelProfile, shape: EngineShape, device: DeviceMemory, version: EngineVersion
) -> Remedy | None:
    if device.is_cpu:
        return None
    for size in tensor_parallel_sizes(profile):
        if size <= shape.tensor_parallel_size:
            continue
        fitting = _fitting(profile, replace(shape, tensor_parallel_size=size), device, version)
        if fitting is not None:
            return Remedy("tensor_parallel_size", str(size), fitting)
    return None


def _cache_dtype(
    profile: ModelProfile, shape: EngineShape, device: DeviceMemory, version: EngineVersion
) -> Remedy | None:
    if shape.kv_cache_dtype not in ("auto", "bfloat16", "float16") or shape.kv_cache_memory_bytes is not None:
        return None
    for dtype in _SMALLER_CACHES:
        fitting = _fitting(profile, replace(shape, kv_cache_dtype=dtype), device, version)
        if fitting is not None:
            return Remedy("kv_cache_dtype", dtype, fitting)
    return None
