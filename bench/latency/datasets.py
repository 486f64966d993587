"""How far lengths spread where a row gives their means alone.

Synthetic prompts have the length that somebody typed: a round number. Means that are not round come from a
collection of real conversations, nearly always ShareGPT, whose lengths have a long tail. That matters: a run ends
with its longest answers alone, and most answers are short ones that overlap with the prompts of others.
"""

from __future__ import annotations

from typing import Final

SHAREGPT_PROMPT_SPREAD: Final = 3.5
SHAREGPT_ANSWER_SPREAD: Final = 3.3
"""95th percentile over mean. The 1,000 conversations that vLLM's client draws from ShareGPT with its default seed
have 215 prompt tokens on average, 757 at the 95th percentile (input_lens of published result files, for example in
github.com/dstackai/benchmarks); answers come out alike, cut at 1,024 tokens."""

_NEAR: Final = 0.006
_LONG: Final = 4000
_TOKENS_LOST: Final = 1.2
_DIGITS: Final = (1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9)
_BINARY: Final = (1, 1.25, 1.5, 1.75)


def is_round(length: float) -> bool:
    """Whether somebody typed this length: a multiple of 50 or 32, or within 0.6 % of a rounder number.

    Tokenizers shorten and lengthen synthetic prompts a little, so 1,019.5 is 1,024.
    """
    if length % 50 == 0 or length % 32 == 0 or length < 16:
        return True
    if length > _LONG and abs(length - 50 * round(length / 50)) <= _TOKENS_LOST:
        return True
    tens = [digit * 10.0**power for power in range(1, 6) for digit in _DIGITS]
    twos = [part * 2.0**power for power in range(4, 18) for part in _BINARY]
    return any(abs(length - value) <= _NEAR * value for value in (*tens, *twos))


def dataset_spreads(prompt: float | None, output: float | None) -> tuple[float, float] | None:
    """Give 95th percentiles over means of prompts and answers of a dataset; None for lengths somebody typed."""
    if prompt is None or is_round(prompt):
        return None
    if output is not None and is_round(output) and output == round(output):
        return SHAREGPT_PROMPT_SPREAD, 1.0
    return SHAREGPT_PROMPT_SPREAD, SHAREGPT_ANSWER_SPREAD
