"""What would have to change for a shape to fit, the cheapest change first.

Each remedy changes one setting and keeps the rest, and is proven by a ledger of its own; what does not help alone
is not offered. Also: from how many tokens on the KV cache outweighs the weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import Final

from stowage.api.refusal import Refusal
from stowage.memory.budget import ledger
from stowage.memory.constraints import tensor_parallel_sizes
from stowage.memory.device import DeviceMemory
from stowage.memory.ledger import Ledger, Verdict
from stowage.memory.release.engine_version import EngineVersion
from stowage.memory.shape import EngineShape
from stowage.model.profile import ModelProfile

_SMALLER_CACHES: Final = ("fp8",)
"""KV dtypes that may be tried: the one that backends of most devices know."""


_ROUNDING: Final = 0.02
"""What whole blocks and the null block may add to a request's tokens times their size."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """One setting that makes the shape fit: its name in the engine's terms, the value, and the new ledger."""

    setting: str
    value: str
    ledger: Ledger

    @property
    def sentence(self) -> str:
        """The remedy in words."""
        if self.ledger.verdict == "Tight":
            return f"{self.setting} {self.value} fits only if every estimate turns out well."
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
    """Tell from how many tokens on KV outweighs weights, in requests of the asked length.

    What a request of that length takes decides: with windows and states it is not its tokens times a size. None where
    a request has a cache of fixed size only.
    """
    if entry.kv_bytes_per_token <= 0:
        return None
    linear = entry.kv_bytes_per_token * shape.max_model_len
    is_linear = abs(entry.kv_needed_bytes / linear - 1) < _ROUNDING
    requests = entry.weights_allocated_bytes / (linear if is_linear else max(1, entry.kv_needed_bytes))
    return Crossover(ceil(requests * shape.max_model_len), requests, shape.max_model_len)


def remedies(
    profile: ModelProfile, shape: EngineShape, device: DeviceMemory, version: EngineVersion
) -> tuple[Remedy, ...]:
    """Find what makes a shape fit that does not: context, requests, tensor parallelism, KV dtype, in this order.

    What fits without doubt is looked for first, and what may fit only where nothing else does.
    """
    certain, kind = _Search(profile, device, version, "Fits"), _Search(profile, device, version, "Tight")
    found = (
        find(certain, shape) or find(kind, shape) for find in (_context, _requests, _ranks, _cache_dtype)
    )
    return tuple(remedy for remedy in found if remedy is not None)


@dataclass(frozen=True, slots=True)
class _Search:
    """What stays the same while one setting is varied, and the verdict that is looked for."""

    profile: ModelProfile
    device: DeviceMemory
    version: EngineVersion
    wanted: Verdict

    def ledger(self, shape: EngineShape) -> Ledger | Refusal:
        return ledger(self.profile, shape, self.device, self.version)

    def fitting(self, shape: EngineShape) -> Ledger | None:
        answer = self.ledger(shape)
        if isinstance(answer, Refusal) or answer.verdict not in ("Fits", self.wanted):
            return None
        return answer


def _context(search: _Search, shape: EngineShape) -> Remedy | None:
    entry = search.ledger(shape)
    if isinstance(entry, Refusal):
        return None
    safe, largest = entry.safe_max_model_len, entry.largest_max_model_len
    longest = safe if search.wanted == "Fits" else largest
    if longest is None or longest >= shape.max_model_len:
        return None
    fitting = search.fitting(replace(shape, max_model_len=longest))
    return None if fitting is None else Remedy("max_model_len", str(longest), fitting)


def _requests(search: _Search, shape: EngineShape) -> Remedy | None:
    """Search the most requests below those asked for; memory grows with their number, so halving finds it."""
    low, high, best = 1, shape.max_num_seqs - 1, None
    while low <= high:
        middle = (low + high) // 2
        fitting = search.fitting(replace(shape, max_num_seqs=middle))
        if fitting is None:
            high = middle - 1
        else:
            low, best = middle + 1, Remedy("max_num_seqs", str(middle), fitting)
    return best


def _ranks(search: _Search, shape: EngineShape) -> Remedy | None:
    if search.device.is_cpu:
        return None
    for size in tensor_parallel_sizes(search.profile):
        if size <= shape.tensor_parallel_size:
            continue
        fitting = search.fitting(replace(shape, tensor_parallel_size=size))
        if fitting is not None:
            return Remedy("tensor_parallel_size", str(size), fitting)
    return None


def _cache_dtype(search: _Search, shape: EngineShape) -> Remedy | None:
    if shape.kv_cache_dtype not in ("auto", "bfloat16", "float16") or shape.kv_cache_memory_bytes is not None:
        return None
    for dtype in _SMALLER_CACHES:
        fitting = search.fitting(replace(shape, kv_cache_dtype=dtype))
        if fitting is not None:
            return Remedy("kv_cache_dtype", dtype, fitting)
    return None
