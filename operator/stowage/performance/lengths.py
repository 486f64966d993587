"""Lengths of the requests of a run: spread over their distribution without chance, so that answers repeat.

A mean and a 95th percentile make an even spread where they are near, a log-normal one where the tail is long.
Values come from a sequence that fills the distribution evenly however many are taken.
"""

from __future__ import annotations

from math import exp, log, sqrt
from statistics import NormalDist
from typing import Final

GOLDEN: Final = 0.6180339887498949
"""Step of the sequence for prompts: the fractional parts of its multiples fill [0, 1) most evenly."""

SILVER: Final = 0.41421356237309515
"""Step of the sequence for answers, which must not go along with that for prompts."""

_EVEN_UP_TO: Final = 1.8
_NORMAL_95: Final = 1.6448536269514722


def spread_lengths(mean: int, p95: int | None, count: int, step: float) -> list[int]:
    """Give so many lengths, each at least 1 token, whose mean is the one asked for."""
    if p95 is None or p95 <= mean or count == 1:
        return [mean] * count
    shares = [(0.5 + number * step) % 1.0 for number in range(count)]
    if p95 <= _EVEN_UP_TO * mean:
        half = (p95 - mean) / 0.9
        return [max(1, round(mean + (2 * share - 1) * half)) for share in shares]
    ratio = log(p95 / mean)
    sigma = _NORMAL_95 - sqrt(max(0.0, _NORMAL_95**2 - 2 * ratio))
    normal = NormalDist()
    drawn = [exp(sigma * normal.inv_cdf(min(0.999, max(0.001, share)))) for share in shares]
    scale = mean / (sum(drawn) / count)
    return [max(1, round(value * scale)) for value in drawn]
