"""What the budget equation leaves for the KV cache on one rank, as a function of the context length.

The equation differs by release (release/engine_versions.toml has the sources). What remains of utilisation × total:

- device-used (0.8): less weights, persistent, non-torch growth, activations, and all else in use on the
device; - torch-peak (0.9 to 0.26): the same, without what was in use before the first snapshot; -
total-consumed (from 0.27): weights count as whole allocator segments;

and less the CUDA-graph estimate from 0.20 on. With pinned KV bytes nothing is subtracted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import ceil

from stowage.memory.band import Band, deviations
from stowage.memory.estimates import Estimate
from stowage.memory.kv.pool import KvPool
from stowage.memory.rank import RankTerms
from stowage.memory.setting import Setting


@dataclass(frozen=True, slots=True)
class KvBudget:
    """The KV share of one rank. `before_tables_bytes` is what is left before block tables are subtracted.

    `counted` are the estimates that the release subtracts; pinned KV bytes make it empty. `deviations` is how
    far they may be off together: bytes to lose and to gain. `asked` holds the context length that was asked for
    with the bytes available and needed at it, which is what most questions are about.
    """

    terms: RankTerms
    budget_bytes: int
    before_tables_bytes: int
    counted: tuple[Estimate, ...]
    pinned: bool
    deviations: tuple[float, float]
    asked: tuple[int, int, int]

    def available_bytes(self, max_model_len: int) -> int:
        """Give the bytes available for the KV cache; negative where they are missing."""
        length, available, _ = self.asked
        if max_model_len == length:
            return available
        return _available_bytes(self.terms, self.before_tables_bytes, max_model_len, pinned=self.pinned)

    def band(self, max_model_len: int) -> Band:
        """Give the range of the available bytes."""
        available, (less, more) = self.available_bytes(max_model_len), self.deviations
        return Band(int(available - less), int(available + more))

    def num_blocks(self, max_model_len: int) -> int:
        """Give the number of blocks that the available bytes make."""
        return max(0, self.available_bytes(max_model_len)) // self.terms.pool.bytes_per_block

    def needed_bytes(self, max_model_len: int) -> int:
        """Give the KV bytes without which the release refuses a context of that length."""
        length, _, needed = self.asked
        return needed if max_model_len == length else self.terms.pool.needed_bytes(max_model_len)

    def largest_max_model_len(self, limit: int, *, shift_bytes: int = 0) -> int | None:
        """Find the longest context of which one request fits, at most `limit`; None where none does.

        `shift_bytes` is added to the available bytes, to ask for the lower end of the band.
        """
        if self.terms.pool.even_step:
            return self._largest_even(limit, shift_bytes)
        return _largest(limit, self.terms.pool, partial(self._slack, shift_bytes=shift_bytes))

    def _largest_even(self, limit: int, shift_bytes: int) -> int | None:
        """Find the same where every block of tokens takes the same bytes of cache and of tables."""
        step = self.terms.pool.even_step
        empty = self._slack(0, shift_bytes)
        steps = empty // (empty - self._slack(step, shift_bytes)) if empty > 0 else 0
        return min(limit, steps * step) or None

    def _slack(self, max_model_len: int, shift_bytes: int) -> int:
        return self.available_bytes(max_model_len) + shift_bytes - self.needed_bytes(max_model_len)


def kv_budget(setting: Setting, terms: RankTerms) -> KvBudget:
    """Apply the release's equation to the terms of a rank."""
    version, pinned = setting.version, setting.shape.kv_cache_memory_bytes
    budget_bytes = ceil(setting.device.total_bytes * setting.shape.gpu_memory_utilization)
    asked = partial(_asked, terms, setting.shape.max_model_len, pinned=pinned is not None)
    if pinned is not None:
        return KvBudget(terms, budget_bytes, pinned, (), True, (0.0, 0.0), asked(pinned))
    counted = [terms.non_torch, terms.activation, terms.guessed_weights]
    if setting.counts_graphs:
        counted.append(terms.graphs)
    if version.equation == "device-used":
        counted.append(terms.in_use_before)
    spent = terms.weights.block_bytes + sum(int(term.value) for term in counted)
    left, off = budget_bytes - spent, deviations(counted)
    return KvBudget(terms, budget_bytes, left, tuple(counted), False, off, asked(left))


def _asked(terms: RankTerms, length: int, before_tables_bytes: int, *, pinned: bool) -> tuple[int, int, int]:
    available = _available_bytes(terms, before_tables_bytes, length, pinned=pinned)
    return length, available, terms.pool.needed_bytes(length)


def _available_bytes(terms: RankTerms, before_tables_bytes: int, length: int, *, pinned: bool) -> int:
    return before_tables_bytes if pinned else before_tables_bytes - terms.persistent_bytes(length)


def _largest(limit: int, pool: KvPool, slack: Callable[[int], int]) -> int | None:
    """Find the last length up to `limit` whose slack is not negative; it falls at multiples of a step only.

    Between two lengths at which windows are full slack falls along a straight line, so after finding the two
    around zero the next try is where the line meets it; halving the slack of an end that stays (Illinois) keeps
    the rounding to blocks from stalling that.
    """
    at_limit, step = slack(limit), pool.step
    if at_limit >= 0:
        return limit
    low, high = 1, -(-limit // step)
    low_slack, high_slack = float(slack(min(step, limit))), float(at_limit)
    if low_slack < 0:
        return None
    tries, kept_low = [length // step for length in pool.bends], None
    while high - low > 1:
        line = low + int((high - low) * low_slack / (low_slack - high_slack))
        middle = min(max(tries.pop() if tries else line, low + 1), high - 1)
        found = slack(middle * step)
        if found >= 0:
            low, low_slack, tries = middle, float(found), []
            high_slack /= 2 if kept_low is False else 1
        else:
            high, high_slack = middle, float(found)
            low_slack /= 2 if kept_low is True else 1
        kept_low = found < 0
    return low * step
