"""Confidence bounds of a loss: exact for answers, by Student and bootstrap for log-probabilities.

Answers are paired (the same prompts on both engines), so only prompts whose verdict changed count. The chance that
a prompt is lost is bounded by Clopper and Pearson (Biometrika 26, 1934), likewise that one is gained, and the two
bounds are combined by Bonferroni's inequality: never below the stated confidence, whatever the correlation.
Differences of log-probabilities are skewed, for which Student's t is too narrow on the long side and the bootstrap-t
(Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 12) is right to second order (Hall, Annals of
Statistics 16, 1988): the wider of both is taken. Pure; the resampling has a fixed seed, so the same figures give
the same bounds.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from stowage_runtime.accuracy.quantiles import beta_quantile, student_quantile

CONFIDENCE = 0.95
"""Of every one-sided bound."""

_ALPHA = 1.0 - CONFIDENCE
# Most of the allowed error goes to the losses, which decide the upper bound; gains are rare and only soften it.
_ALPHA_LOST, _ALPHA_GAINED = 0.8 * _ALPHA, 0.2 * _ALPHA
_RESAMPLES = 1999
_LEAST_FOR_BOOTSTRAP = 10
_SEED = 20260101


@dataclass(frozen=True)
class Bounds:
    """An estimate with its lower and upper bound, each one-sided at CONFIDENCE."""

    estimate: float
    low: float
    high: float


def share_high(count: int, total: int, alpha: float) -> float:
    """Upper Clopper-Pearson bound of a share: exceeded by the true one with a chance of at most alpha."""
    return 1.0 if count >= total else beta_quantile(1.0 - alpha, count + 1, total - count)


def share_low(count: int, total: int, alpha: float) -> float:
    """Lower Clopper-Pearson bound of a share."""
    return 0.0 if count <= 0 else beta_quantile(alpha, count, total - count + 1)


def paired_drop(lost: int, gained: int, compared: int) -> Bounds:
    """Bound the drop of the share of right answers, from pairs that changed; ``compared`` is at least 1."""
    high = share_high(lost, compared, _ALPHA_LOST) - share_low(gained, compared, _ALPHA_GAINED)
    low = share_low(lost, compared, _ALPHA_GAINED) - share_high(gained, compared, _ALPHA_LOST)
    return Bounds((lost - gained) / compared, low, high)


def mean_bounds(values: Sequence[float]) -> Bounds | None:
    """Bound the mean that these values were drawn around; None for fewer than two, which say nothing of the spread."""
    if len(values) < 2:
        return None
    mean, error = _mean_and_error(values)
    if error == 0.0:
        return Bounds(mean, mean, mean)
    reach = student_quantile(CONFIDENCE, len(values) - 1) * error
    low, high = mean - reach, mean + reach
    if len(values) >= _LEAST_FOR_BOOTSTRAP:
        below, above = _bootstrap_quantiles(values, mean)
        low, high = min(low, mean - above * error), max(high, mean - below * error)
    return Bounds(mean, low, high)


def _bootstrap_quantiles(values: Sequence[float], mean: float) -> tuple[float, float]:
    """Return the quantiles at 1 − CONFIDENCE and CONFIDENCE of the studentised mean of resamples."""
    source = random.Random(_SEED)  # noqa: S311 - resampling, not a secret
    studentised = []
    for _ in range(_RESAMPLES):
        resample_mean, error = _mean_and_error(source.choices(values, k=len(values)))
        if error > 0.0:
            studentised.append((resample_mean - mean) / error)
    if not studentised:
        return 0.0, 0.0
    studentised.sort()
    rank = (len(studentised) + 1) * _ALPHA
    low = studentised[max(0, math.floor(rank) - 1)]
    high = studentised[min(len(studentised) - 1, math.ceil(len(studentised) + 1 - rank) - 1)]
    return low, high


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and its standard error."""
    count = len(values)
    mean = math.fsum(values) / count
    squares = math.fsum((value - mean) ** 2 for value in values)
    return mean, math.sqrt(squares / (count - 1) / count)
