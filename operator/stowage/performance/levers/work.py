"""Levers on the work itself: prompts that cost less, prompts that are cached, and tokens that are guessed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from stowage.api.refusal import Refusal
from stowage.memory.shape import SpeculativeSettings
from stowage.performance.levers.attempt import Attempt
from stowage.performance.levers.question import LeverQuestion
from stowage.performance.serving import Serving
from stowage.performance.step import StepBatch, step_time
from stowage.performance.traffic import Traffic
from stowage.performance.work import rank_work

DRAFTED: Final = 3
"""Tokens that are guessed for each step, as the engine's documentation suggests for EAGLE heads."""

ACCEPTED: Final = 0.7
"""Share of guessed tokens that turn out right: an assumption, since it depends on the text."""

_HIT_RATE: Final = 0.5
_HIGHER_HIT_RATE: Final = 0.8


def work_levers(question: LeverQuestion) -> Iterator[Attempt]:
    """Give the levers on prompts and on decoding several tokens in a step."""
    yield prefill_halved(question)
    yield _prefix_cache(question)
    yield _speculation(question)


def prefill_halved(question: LeverQuestion) -> Attempt:
    """Halve the GPU time of prompts (what SwiftKV promises, arXiv 2410.03960), leaving decoding and KV as they are."""
    return Attempt(
        "prefill compute −50 %",
        "prompts take half of the GPU time, as with SwiftKV; decoding and KV cache are the same",
        question.serving,
        f"prompts take {question.base.prefill_share:.0%} of the GPU time",
        traffic=_half_of_the_time(question),
        lossy=True,
        unmeasured=("SwiftKV",),
    )


def _half_of_the_time(question: LeverQuestion) -> Traffic:
    """Give traffic whose prompts look back on as much but compute so little that they take half of the time."""
    load = question.load
    wanted = _prompt_seconds(question, load.computed_prompt_tokens) / 2
    low, high = 1, load.computed_prompt_tokens
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _prompt_seconds(question, middle) < wanted else (low, middle)
    return _hitting(load, 1 - high / load.prompt_tokens)


def _prompt_seconds(question: LeverQuestion, computed: int) -> float:
    """Give what a prompt adds to the steps that it is computed in, as many as its first computation takes."""
    load, decoding = question.load, question.decode_batch
    room = max(1, question.serving.shape.max_num_batched_tokens - round(decoding.decode_sequences))
    parts = -(-load.computed_prompt_tokens // room)
    pairs = computed * (load.prompt_tokens - computed / 2)
    part = replace(
        decoding,
        prefill_tokens=computed / parts,
        prefill_pairs=pairs / parts,
        prefill_sequences=1 / parts,
    )
    return parts * (step_time(question.serving, part).total - question.decode_step.total)


def _prefix_cache(question: LeverQuestion) -> Attempt:
    load = question.load
    rate = _HIT_RATE if load.prefix_hit_rate < _HIT_RATE else _HIGHER_HIT_RATE
    return Attempt(
        f"prefix cache hits {rate:.0%}",
        f"{load.prefix_hit_rate:.0%} → {rate:.0%} of prompt tokens found in the cache",
        question.serving,
        f"prompts take {question.base.prefill_share:.0%} of the GPU time",
        traffic=_hitting(load, max(rate, load.prefix_hit_rate)),
        assumption=f"{rate:.0%} of prompt tokens repeat the beginning of an earlier prompt",
    )


def _hitting(load: Traffic, rate: float) -> Traffic:
    return replace(load, prefix_hit_rate=min(max(rate, 0.0), 0.999_999))


def _speculation(question: LeverQuestion) -> Attempt:
    """Guess tokens by a head of one layer, verified by the model in one step.

    A step of `k` guessed tokens of which each is right with probability a yields (1 − a^(k+1)) / (1 − a) tokens
    (Leviathan et al., arXiv 2211.17192, equation 1).
    """
    batch, plain = question.decode_batch, question.decode_step.total
    verified = step_time(question.serving, _verifying(batch)).total
    drafting = DRAFTED * plain * _draft_share(question.serving)
    tokens = (1 - ACCEPTED ** (DRAFTED + 1)) / (1 - ACCEPTED)
    now = question.serving.shape.speculative
    return Attempt(
        "speculative decoding",
        f"{DRAFTED} tokens guessed for each step, {tokens:.1f} gained",
        _with_draft(question) if now is None else question.serving,
        f"a step of {batch.decode_sequences:.0f} takes {(verified + drafting) / plain:.1f} times as long "
        f"and yields {tokens:.1f} tokens for each",
        decode_factor=(verified + drafting) / plain / tokens if now is None else 1.0,
        unmeasured=("speculative decoding",),
        assumption=f"{ACCEPTED:.0%} of guessed tokens are right",
    )


def _verifying(batch: StepBatch) -> StepBatch:
    guessed = DRAFTED * batch.decode_sequences
    pairs = DRAFTED * batch.decode_context
    return replace(batch, prefill_tokens=guessed, prefill_pairs=pairs, prefill_sequences=guessed)


def _draft_share(serving: Serving) -> float:
    """Give the size of a head of one layer and the output head, as a share of what a step reads."""
    work = rank_work(serving.profile, serving.shape, serving.gpu, serving.version)
    dense = sum(entry.count * entry.weight_bytes for entry in work.linears)
    experts = sum(entry.count * entry.held * entry.weight_bytes for entry in work.experts)
    whole = dense + experts + work.head.weight_bytes
    return ((dense + experts) / work.layers + work.head.weight_bytes) / whole


def _with_draft(question: LeverQuestion) -> Serving | Refusal:
    """Give the replica with the room that the guessing head leaves; its time is not the step model's to tell."""
    shape = question.serving.shape
    guessing = replace(shape, speculative=SpeculativeSettings("eagle3", DRAFTED))
    found = question.refit(shape=guessing)
    return found if isinstance(found, Refusal) else replace(found, shape=shape)
