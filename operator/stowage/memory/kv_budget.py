"""What the budget equation leaves for the KV cache on one rank, as a function of the context length.

The equation differs by release (engine_versions.toml has the sources). What remains of utilisation × total:

- device-used (0.8): less weights, persistent, non-torch growth, activations, and all else in use on the
device; - torch-peak (0.9 to 0.26): the same, without what was in use before the first snapshot; -
total-consumed (from 0.27): weights count as whole allocator segments;

and less the CUDA-graph estimate from 0.20 on. With pinned KV bytes nothing is subtracted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

from stowage.memory.band import Band, remainder_band
from stowage.memory.estimates import Estimate
from stowage.memory.rank import RankTerms
from stowage.memory.residents import block_table_bytes
from stowage.memory.setting import Setting


@dataclass(frozen=True, slots=True)
class KvBudget:
    """The KV share of one rank. `before_tables_bytes` is what is left before block tables are subtracted.

    `counted` are the estimates that the release subtracts; pinned KV bytes make it empty.
    """

    terms: RankTerms
    budget_bytes: int
    before_tables_bytes: int
    counted: tuple[Estimate, ...]
    pinned: bool

    def available_bytes(self, max_model_len: int) -> int:
        """Give the bytes available for the KV cache; negative where they are missing."""
        if self.pinned:
            return self.before_tables_bytes
        return self.before_tables_bytes - self.terms.persistent_bytes(max_model_len)

    def band(self, max_model_len: int) -> Band:
        """Give the range of the available bytes."""
        return remainder_band(self.available_bytes(max_model_len), self.counted)

    def num_blocks(self, max_model_len: int) -> int:
        """Give the number of blocks that the available bytes make."""
        return max(0, self.available_bytes(max_model_len)) // self.terms.pool.bytes_per_block

    def needed_bytes(self, max_model_len: int) -> int:
        """Give the KV bytes without which the release refuses a context of that length."""
        pool = self.terms.pool
        return pool.blocks_needed(max_model_len) * pool.bytes_per_block

    def largest_max_model_len(self, limit: int, *, shift_bytes: int = 0) -> int | None:
        """Find the longest context of which one request fits, at most `limit`; None where none does.

        `shift_bytes` is added to the available bytes, to ask for the lower end of the band.
        """
        pool = self.terms.pool
        if all(group.layer.window is None for group in pool.groups):
            return self._largest_without_windows(limit, shift_bytes)
        bytes_per_block = pool.bytes_per_block

        def fits(length: int) -> bool:
            needed = pool.blocks_needed(length) * bytes_per_block
            return self.available_bytes(length) + shift_bytes >= needed

        return _largest(limit, fits)

    def _largest_without_windows(self, limit: int, shift_bytes: int) -> int | None:
        """Solve for the number of blocks: each costs itself and, unless pinned, a place in the block tables."""
        terms, pool = self.terms, self.terms.pool
        bytes_per_block, groups = pool.bytes_per_block, len(pool.groups)
        row = 0 if self.pinned else block_table_bytes(terms.max_num_seqs, 1) * groups
        state = 0 if self.pinned else terms.state_bytes
        free = self.before_tables_bytes - state + shift_bytes - pool.reserved_blocks * bytes_per_block
        rows = free // (bytes_per_block * groups + row)
        return min(limit, rows * pool.block_size) if rows > 0 else None


def kv_budget(setting: Setting, terms: RankTerms) -> KvBudget:
    """Apply the release's equation to the terms of a rank."""
    version, pinned = setting.version, setting.shape.kv_cache_memory_bytes
    budget_bytes = ceil(setting.device.total_bytes * setting.shape.gpu_memory_utilization)
    if pinned is not None:
        return KvBudget(terms, budget_bytes, pinned, (), pinned=True)
    counted = [terms.non_torch, terms.activation]
    if version.graphs_subtracted:
        counted.append(terms.graphs)
    if version.equation == "device-used":
        counted.append(terms.in_use_before)
    spent = terms.weights.block_bytes + sum(int(term.value) for term in counted)
    return KvBudget(terms, budget_bytes, budget_bytes - spent, tuple(counted), pinned=False)


def _largest(limit: int, fits: Callable[[int], bool]) -> int | None:
    if fits(limit):
        return limit
    if not fits(1):
        return None
    low, high = 1, limit - 1
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low
