"""The load that one data-parallel rank settles at: how many requests decode, and how often a prompt comes between.

Requests that leave are replaced at once, so the mean step mixes prompts and decoding in the ratio of their tokens.
How many decode follows from how long both take, which follows from how many decode: a fixed point, found by secants.
Nothing here knows queues or clients; `steady` adds them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Final

from stowage.performance.pace import pace_of
from stowage.performance.serving import Serving
from stowage.performance.step_parts import StepBatch
from stowage.performance.traffic import Traffic

_CLOSE: Final = 1e-4
"""Share of the batch, or of the rate, that two tries may differ by when they count as one."""

_ROUNDS: Final = 8
_TRIES: Final = 16


@dataclass(frozen=True, slots=True)
class Load:
    """One rank with `batch` requests in flight: prompts in `chunks`, in a `share` of the steps; times in seconds.

    A step with prompts in it has `tokens` of them: a chunk of one, or more where more come in a step than that.
    `decoding` is what a request that decodes sees, itself and those of the others that are past their prompt on
    average; `service` is the time from start to end of one.
    """

    batch: float
    decoding: float
    chunks: int
    tokens: float
    share: float
    tpot: float
    ttft: float
    service: float


@dataclass(frozen=True, slots=True)
class State:
    """A load worked out from exact steps, and the seconds that a chunk of a prompt adds to one that only decodes."""

    load: Load
    chunk_seconds: float


class Loads:
    """The loads of one replica under one traffic."""

    def __init__(self, serving: Serving, traffic: Traffic) -> None:
        self.pace = pace_of(serving)
        self._budget = serving.shape.max_num_batched_tokens
        self._prompt = traffic.computed_prompt_tokens
        self._cached = traffic.prompt_tokens - self._prompt
        self._output = traffic.output_tokens
        self._answers = max(0, traffic.output_tokens - 1)
        self._context = traffic.mean_context_tokens
        self._decoding_share = 1.0

    def at(self, batch: float) -> Load:
        """Find the load with so many requests in flight, one or more, with token counts rounded a little."""
        others = max(0.0, batch - 1)
        decoding = 1 + others * self._decoding_share
        before, gap_before = 0.0, 0.0
        found = self._rounded(batch, decoding)
        for _ in range(_ROUNDS):
            settled = 1 + others * (found.service - found.ttft) / found.service
            gap = settled - decoding
            if abs(gap) < _CLOSE * batch:
                break
            slope = (gap - gap_before) / (decoding - before) if before not in (0.0, decoding) else -1.0
            before, gap_before = decoding, gap
            decoding = decoding - gap / slope if slope < -_CLOSE else settled
            decoding = min(1 + others, max(1.0, decoding))
            found = self._rounded(batch, decoding)
        if others:
            self._decoding_share = (decoding - 1) / others
        return found

    def for_rate(self, rate: float, most: float) -> float:
        """Find the requests that one of `rate` per second sees in flight; `most` where the rate is out of reach.

        It sees itself and, as arrivals know nothing of each other, as many as there are on average: those that come
        while one is served (Little's law). Serving takes longer the more there are, in nearly straight pieces: a line
        through two known points comes near at once.
        """

        def gap_at(batch: float) -> float:
            return 1 + rate * self.at(batch).service - batch

        low, high = 1.0, max(1.0, most)
        low_gap, high_gap = gap_at(low), gap_at(high)
        if high_gap >= 0:
            return high
        found, last_gap = low, 0.0
        for _ in range(_TRIES):
            found = low + (high - low) * low_gap / (low_gap - high_gap)
            gap = gap_at(found)
            if abs(gap) <= _CLOSE * found:
                break
            # The end that stays twice running counts half (Illinois), or the other would creep.
            keeps = 0.5 if gap * last_gap > 0 else 1.0
            if gap > 0:
                low, low_gap, high_gap = found, gap, high_gap * keeps
            else:
                high, high_gap, low_gap = found, gap, low_gap * keeps
            last_gap = gap
        return found

    def state(self, batch: float) -> State:
        """Work the load out exactly, once it is found."""
        rough = self.at(batch)
        plain = self.pace.seconds(self.decode_batch(rough.decoding))
        mixed = self.pace.seconds(self.mixed_batch(rough.decoding - 1, rough.tokens))
        load = self._mixture(batch, rough.decoding, (plain, mixed))
        added = max(0.0, mixed - plain)
        return State(load, added * self._prompt / load.chunks / load.tokens)

    def decode_batch(self, decoding: float) -> StepBatch:
        """Give a step in which so many requests decode."""
        return StepBatch(decode_sequences=decoding, decode_context=decoding * self._context)

    def mixed_batch(self, decoding: float, tokens: float) -> StepBatch:
        """Give the same step with so many tokens of prompts in it."""
        pairs = tokens * (self._cached + self._prompt / 2)
        return StepBatch(tokens, pairs, tokens / self._prompt, decoding, decoding * self._context)

    def chunk_batch(self, load: Load) -> StepBatch:
        """Give a step of a chunk alone."""
        return self.mixed_batch(0.0, self._prompt / load.chunks)

    def _rounded(self, batch: float, decoding: float) -> Load:
        quick, tokens, others = self.pace.quick, self._tokens(batch, decoding)[1], decoding - 1
        pairs = tokens * (self._cached + self._prompt / 2)
        plain = quick(0.0, 0.0, 0.0, decoding, decoding * self._context)
        mixed = quick(tokens, pairs, tokens / self._prompt, others, others * self._context)
        return self._mixture(batch, decoding, (plain, mixed))

    def _tokens(self, batch: float, decoding: float) -> tuple[int, float, float]:
        """Give the chunks of a prompt, the prompt tokens of a step that has any, and the chunks that come in one."""
        room = max(1.0, self._budget - decoding)
        chunks = ceil(self._prompt / room)
        coming = batch * chunks / (chunks + max(1, self._answers))
        return chunks, min(room, self._prompt / chunks * max(1.0, coming)), coming

    def _mixture(self, batch: float, decoding: float, steps: tuple[float, float]) -> Load:
        """Mix plain and mixed steps; `steps` are the seconds of both kinds.

        A request meets the prompts of all others while it answers. Where more prompts come than the token budget takes,
        the budget sets the pace, and they wait for their turn.
        """
        plain, mixed = steps
        chunks, tokens, coming = self._tokens(batch, decoding)
        met = min(1.0, coming * (batch - 1) / batch)
        tpot, ttft = met * mixed + (1 - met) * plain, chunks * mixed
        if coming * self._prompt / chunks > tokens:
            ttft = max(ttft, (batch * self._prompt / tokens - self._answers) * tpot)
        return Load(batch, decoding, chunks, tokens, met, tpot, ttft, ttft + self._answers * tpot)
