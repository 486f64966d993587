"""The block pool of one rank: what a block costs, what a request takes, and capacity as the engine prints it.

Follows `get_max_concurrency_for_kv_cache_config` and the check at start in vllm/v1/core/kv_cache_utils.py.
What a release checks is not always what a request takes (kv/rules.toml, `check`); a pool asks for the larger
of both, so that a plan that fits serves one request of its longest context.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from stowage.memory.kv.groups import KvGroup
from stowage.memory.kv.layers import FULL_KINDS
from stowage.memory.kv.rules import KvRules


@dataclass(frozen=True, slots=True)
class KvPool:
    """The pool of one rank.

    `groups` are those of the rank, `checked` what the release looks at before it starts (the same, the rank's
    layers one by one, or the groups of all stages). `reserved_blocks` is 1 where it plans for the block that is
    never used; `prints_concurrency`: tokens are printed from the concurrency, not from blocks.
    """

    groups: tuple[KvGroup, ...]
    checked: tuple[KvGroup, ...]
    rules: KvRules
    tokens_in_flight: int
    context_parallel_size: int
    reserved_blocks: int
    prints_concurrency: bool
    bytes_per_block: int
    block_size: int

    @property
    def num_groups(self) -> int:
        """Number of groups, each with a block table of its own."""
        return sum(group.copies for group in self.groups)

    @property
    def bytes_per_token(self) -> int:
        """Marginal bytes of one more token in a long request; what has a fixed size does not grow."""
        growing = [group for group in self.groups if group.lead.grows] or self.groups
        blocks = sum(group.copies / group.lead.block_size for group in growing)
        return round(self.bytes_per_block * blocks / self.context_parallel_size)

    @property
    def step(self) -> int:
        """Tokens by which a context may grow before it can take another block."""
        sizes = [
            group.lead.block_size * (self.context_parallel_size if group.lead.grows else 1)
            for group in (*self.groups, *self.checked)
        ]
        return gcd(*sizes)

    @property
    def even_step(self) -> int:
        """Tokens of a block where every group takes one block for each so many tokens; 0 where groups differ.

        Needs then grow by the same bytes at each step, and so do block tables.
        """
        if len(self.groups) != 1 or len(self.checked) > 1 or self.groups[0].lead.kind not in FULL_KINDS:
            return 0
        if self.checked and self.checked[0].lead.block_size != self.groups[0].lead.block_size:
            return 0
        return self.groups[0].lead.block_size * self.context_parallel_size

    @property
    def bends(self) -> tuple[int, ...]:
        """Lengths at which windows and chunks are full, the shortest first: beyond, requests grow more slowly."""
        kept = {
            group.lead.span + self.tokens_in_flight
            for group in (*self.groups, *self.checked)
            if group.lead.kind in ("window", "chunk")
        }
        return tuple(sorted(kept))

    def blocks_per_request(self, tokens: int) -> int:
        """Give the blocks that one request of that many tokens takes at most, over all groups."""
        flight, ranks, blocks = self.tokens_in_flight, self.context_parallel_size, 0
        for group in self.groups:
            blocks += group.copies * group.lead.blocks(tokens, flight, ranks)
        return blocks

    def needed_bytes(self, tokens: int) -> int:
        """Give the bytes without which no request of that many tokens is served, or the engine does not start."""
        usable = self.blocks_per_request(tokens) * self.bytes_per_block
        return max(usable, self._checked_bytes(tokens)) + self.reserved_blocks * self.bytes_per_block

    def table_entries(self, max_model_len: int) -> int:
        """Give the places that one request has in the block tables of all groups."""
        ranks, entries = self.context_parallel_size, 0
        for group in self.groups:
            size = group.lead.block_size * ranks
            entries += group.copies * -(-max_model_len // size) if size else 0
        return entries

    def concurrency(self, num_blocks: int, max_model_len: int) -> float:
        """Give how many requests of the longest context the engine says it can hold."""
        if self.rules.concurrency == "tokens":
            return num_blocks * self.block_size / max_model_len
        return num_blocks / self.blocks_per_request(max_model_len)

    def tokens(self, num_blocks: int, max_model_len: int) -> int:
        """Give the size of the cache in tokens as the engine prints it."""
        if self.prints_concurrency:
            return int(self.concurrency(num_blocks, max_model_len) * max_model_len)
        paged = any(group.lead.kind != "state" for group in self.groups)
        size = self.block_size if paged else max_model_len
        return num_blocks // self.num_groups * size * self.context_parallel_size

    def _checked_bytes(self, tokens: int) -> int:
        flight, ranks = self.tokens_in_flight, self.context_parallel_size
        match self.rules.check:
            case "layers":
                return sum(
                    group.copies * group.page_bytes * group.lead.blocks(tokens, flight, ranks)
                    for group in self.checked
                )
            case "first-group":
                first = self.checked[0].lead.blocks(tokens, flight, ranks)
                return first * max(group.page_bytes for group in self.checked)
        return 0
