"""What goes into a step and what comes out: tokens and what they look back on, and seconds by part."""

from __future__ import annotations

from dataclasses import dataclass, fields
from operator import add, attrgetter


@dataclass(frozen=True, slots=True)
class StepBatch:
    """What one data-parallel rank computes in a step.

    `prefill_tokens` of prompts of `prefill_sequences` requests, which look back on `prefill_pairs` pairs of a
    token and an earlier one (a fresh prompt of n tokens: n²/2); and one token each of `decode_sequences`
    requests that have `decode_context` cached tokens together.
    """

    prefill_tokens: float = 0.0
    prefill_pairs: float = 0.0
    prefill_sequences: float = 0.0
    decode_sequences: float = 0.0
    decode_context: float = 0.0

    @property
    def tokens(self) -> float:
        """Tokens of the step."""
        return self.prefill_tokens + self.decode_sequences

    @property
    def sequences(self) -> float:
        """Requests that get a new token."""
        return self.prefill_sequences + self.decode_sequences

    def divided(self, parts: float) -> StepBatch:
        """Give one of so many equal parts."""
        return StepBatch(
            self.prefill_tokens / parts,
            self.prefill_pairs / parts,
            self.prefill_sequences / parts,
            self.decode_sequences / parts,
            self.decode_context / parts,
        )


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds by part; `total` is what a step takes from one token of a request to its next.

    `weights` are all products of dense layers and the head, `moe` those of experts, `routing` choosing and
    sending tokens for them, `attention` what prompts compute, `kv_read` what decoding reads, `bubble` the time
    that pipeline stages wait, `overhead` launches and the host. Besides: `flops` and `moved_bytes` of one rank,
    and `compute_seconds`, how much of the seconds above the matrix units decide.
    """

    weights: float = 0.0
    attention: float = 0.0
    kv_read: float = 0.0
    moe: float = 0.0
    routing: float = 0.0
    all_reduce: float = 0.0
    hand_over: float = 0.0
    bubble: float = 0.0
    sampling: float = 0.0
    overhead: float = 0.0
    flops: float = 0.0
    moved_bytes: float = 0.0
    compute_seconds: float = 0.0

    @property
    def total(self) -> float:
        """Seconds of the whole step."""
        work = self.weights + self.attention + self.kv_read + self.moe + self.routing
        exchange = self.all_reduce + self.hand_over + self.bubble
        return work + exchange + self.sampling + self.overhead

    def scaled(self, factor: float) -> StepTime:
        """Give every part times a factor."""
        return StepTime(*(value * factor for value in self._values()))

    def plus(self, other: StepTime) -> StepTime:
        """Give the sum with another step, part by part."""
        return StepTime(*map(add, self._values(), other._values()))

    def _values(self) -> tuple[float, ...]:
        return _every_part(self)


_every_part = attrgetter(*(entry.name for entry in fields(StepTime)))
