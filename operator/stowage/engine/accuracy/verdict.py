"""What the figures of an accuracy check mean for the loss that the user accepts.

A check passes when it has shown that no more is lost, fails when it has shown that more is lost, and is inconclusive
otherwise: the absence of a proof is never taken for one. Two measures are judged. Log-probabilities of the baseline's
answers resolve small losses with few prompts. Answers are what users see, but on n prompts without a single loss
they only bound it by about 3 / n (the rule of three), so beside log-probabilities they may stop a promotion and
need not prove it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from stowage.api.v1alpha1 import AccuracyVerdict
from stowage_runtime.contract import AccuracyReport, AnswerFigures, LikelihoodFigures

LEAST_PROMPTS: Final = 10
"""Below this the spread of log-probabilities is itself a guess, and nothing passes."""

# Share of the allowed error that the bound on lost answers has; the rest bounds the gained ones.
_SHARE_OF_LOSSES: Final = 0.8


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict, why in one sentence, and the prompts that answers alone would need without a single loss."""

    verdict: AccuracyVerdict
    message: str
    needed_prompts: int


def judge(report: AccuracyReport, max_drop: float) -> Judgement:
    """Judge a report; `max_drop` is the accepted loss as a share above 0."""
    needed = needed_prompts(max_drop, report.confidence)
    verdict, why = _verdict(report, max_drop)
    message = f"{why} ({report.prompts} prompts, {report.confidence:.0%} confidence)."
    if verdict is AccuracyVerdict.INCONCLUSIVE:
        message += f" {_advice(report, max_drop, needed)}"
    return Judgement(verdict, " ".join([message, *report.notes]), needed)


def needed_prompts(max_drop: float, confidence: float) -> int:
    """The least number of prompts with which answers alone can show a loss of at most `max_drop`.

    Not one of them may be lost: then the upper Clopper-Pearson bound is 1 − α^(1/n), which has to be `max_drop`.
    """
    if max_drop >= 1.0:
        return 1
    alpha = _SHARE_OF_LOSSES * (1.0 - confidence)
    return max(1, math.ceil(math.log(alpha) / math.log1p(-max_drop) - 1e-9))


def _verdict(report: AccuracyReport, max_drop: float) -> tuple[AccuracyVerdict, str]:
    loss = _shown_loss(report, max_drop)
    if loss is not None:
        return AccuracyVerdict.FAIL, f"{loss}, more than {_percent(max_drop)}"
    answers = report.answers
    if answers is not None and answers.drop > max_drop:
        words = f"{_lost(answers)}, more than {_percent(max_drop)}, but that may be chance"
        return AccuracyVerdict.INCONCLUSIVE, words
    if report.likelihood is not None:
        return _by_likelihood(report, report.likelihood, max_drop)
    return _by_answers(answers, max_drop)


def _shown_loss(report: AccuracyReport, max_drop: float) -> str | None:
    """The loss that is shown to be too large, if one is."""
    answers, likelihood = report.answers, report.likelihood
    if likelihood is not None and _enough(report) and (likelihood.drop_low or 0.0) > max_drop:
        return f"Tokens of the baseline's answers are at least {_percent(likelihood.drop_low)} less likely"
    if answers is not None and answers.drop_low > max_drop:
        return f"At least {_percent(answers.drop_low)} of the answers are lost"
    return None


def _by_answers(answers: AnswerFigures | None, max_drop: float) -> tuple[AccuracyVerdict, str]:
    if answers is None:
        return AccuracyVerdict.INCONCLUSIVE, "Nothing could be compared"
    bound = _percent(answers.drop_high)
    if 2 * answers.baseline_right < answers.compared:
        # What was wrong before cannot be lost, so such prompts would pass anything.
        words = f"Only {answers.baseline_right} of {answers.compared} answers were right before"
        return AccuracyVerdict.INCONCLUSIVE, f"{words}, which is too few to lose any"
    if answers.drop_high <= max_drop:
        return AccuracyVerdict.PASS, f"{_lost(answers)}, a drop of at most {bound}"
    return AccuracyVerdict.INCONCLUSIVE, f"{_lost(answers)}, which bounds the drop by {bound} only"


def _by_likelihood(
    report: AccuracyReport, figures: LikelihoodFigures, max_drop: float
) -> tuple[AccuracyVerdict, str]:
    high, limit = figures.drop_high, _percent(max_drop)
    if high is None or not _enough(report):
        return AccuracyVerdict.INCONCLUSIVE, f"{report.prompts} prompts are too few to bound the loss"
    if figures.noise is not None and figures.noise > max_drop:
        return (
            AccuracyVerdict.INCONCLUSIVE,
            f"The baseline differs from itself by up to {_percent(figures.noise)} between two runs, "
            f"more than {limit}",
        )
    words = (
        f"Tokens of the baseline's answers are {_percent(figures.drop)} less likely, at most {_percent(high)}"
    )
    if report.answers is not None:
        words += f"; {_lost(report.answers)}"
    return (AccuracyVerdict.PASS if high <= max_drop else AccuracyVerdict.INCONCLUSIVE), words


def _enough(report: AccuracyReport) -> bool:
    return report.likelihood is not None and report.likelihood.prompts >= LEAST_PROMPTS


def _lost(answers: AnswerFigures) -> str:
    return f"{answers.lost} of {answers.compared} answers lost and {answers.gained} gained"


def _advice(report: AccuracyReport, max_drop: float, needed: int) -> str:
    if report.likelihood is not None:
        if (report.likelihood.noise or 0.0) > max_drop:
            return f"A maxDrop above {_percent(report.likelihood.noise)} can be checked on this baseline."
        return f"Use more prompts (at least {LEAST_PROMPTS}), or accept a larger maxDrop."
    if report.answers is not None and 2 * report.answers.baseline_right < report.answers.compared:
        return "Use prompts that the model can answer, and look at `expected`."
    return f"Without a baseline a verdict at {_percent(max_drop)} takes at least {needed} prompts."


def _percent(share: float | None) -> str:
    return f"{100 * (share or 0.0):.3g} %"
