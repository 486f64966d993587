"""From verdicts and log-probabilities of single prompts to the figures of a report. Pure.

Every prompt counts once, however long its answer is. The candidate is compared with the mean of the baseline's two
runs, which halves the noise in it; the two runs compared with each other are the noise floor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stowage_runtime.accuracy.bounds import Bounds, mean_bounds, paired_drop
from stowage_runtime.contract import AnswerFigures, LikelihoodFigures

_LARGEST_GAIN = 50.0

Scores = Sequence[tuple[float, ...]]
"""For every prompt the log-probability (nats) of each token of the baseline's answer."""


@dataclass(frozen=True)
class Compared:
    """Whether the answers to one prompt were right; ``again`` is None where no baseline ran."""

    baseline: bool
    again: bool | None
    candidate: bool


def answer_figures(compared: Sequence[Compared]) -> AnswerFigures | None:
    """Count and bound the answers that were lost; None where none could be judged."""
    if not compared:
        return None
    lost = sum(each.baseline and not each.candidate for each in compared)
    gained = sum(each.candidate and not each.baseline for each in compared)
    bounds = paired_drop(lost, gained, len(compared))
    noisy = [each.again != each.baseline for each in compared if each.again is not None]
    return AnswerFigures(
        compared=len(compared),
        baseline_right=sum(each.baseline for each in compared),
        candidate_right=sum(each.candidate for each in compared),
        lost=lost,
        gained=gained,
        drop=bounds.estimate,
        drop_low=bounds.low,
        drop_high=bounds.high,
        changed_by_noise=sum(noisy) if noisy else None,
    )


def likelihood_figures(first: Scores, second: Scores, candidate: Scores) -> LikelihoodFigures | None:
    """Bound the loss of likelihood of the baseline's answers; None where no answer has a token."""
    places = [index for index, scores in enumerate(first) if scores]
    if not places:
        return None
    losses, noise = [], []
    for index in places:
        one, other = _mean(first[index]), _mean(second[index])
        losses.append((one + other) / 2.0 - _mean(candidate[index]))
        noise.append(one - other)
    mean = math.fsum(losses) / len(losses)
    bounds, floor = mean_bounds(losses), mean_bounds(noise)
    return LikelihoodFigures(
        prompts=len(places),
        tokens=sum(len(first[index]) for index in places),
        drop=drop_of(mean),
        drop_low=drop_of(bounds.low) if bounds else None,
        drop_high=drop_of(bounds.high) if bounds else None,
        noise=_floor(floor) if floor else None,
    )


def drop_of(nats: float) -> float:
    """Return the share by which the probability of a token is lower when its log-probability is ``nats`` lower."""
    return -math.expm1(min(-nats, _LARGEST_GAIN))


def _floor(noise: Bounds) -> float:
    return max(abs(drop_of(noise.low)), abs(drop_of(noise.high)))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
