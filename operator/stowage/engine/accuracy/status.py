"""status.accuracy in the published form: figures in percent, rounded so that they do not tick."""

from __future__ import annotations

from typing import Any

from stowage.api.conditions import Reason
from stowage.api.v1alpha1 import (
    AccuracyAnswers,
    AccuracyLikelihood,
    AccuracySpec,
    AccuracyState,
    AccuracyStatus,
    AccuracyVerdict,
)
from stowage.api.v1alpha1.accuracy_status import MOST_PERCENT
from stowage.engine.accuracy.record import CheckResult
from stowage.engine.accuracy.verdict import Judgement, needed_prompts
from stowage_runtime.contract import AccuracyReport, AnswerFigures, LikelihoodFigures

_CONFIDENCE = 0.95
_REASONS = {
    AccuracyVerdict.FAIL: Reason.ACCURACY_CHECK_FAILED,
    AccuracyVerdict.INCONCLUSIVE: Reason.ACCURACY_CHECK_INCONCLUSIVE,
}


def open_status(
    words: str, state: AccuracyState, message: str, accuracy: AccuracySpec, job: str | None = None
) -> dict[str, Any]:
    """The status of a check without a verdict."""
    return AccuracyStatus(
        candidate=words,
        state=state,
        reason=Reason.ACCURACY_CHECK_PENDING.value,
        message=message,
        max_drop=accuracy.max_drop,
        needed_prompts=needed_prompts(accuracy.max_drop_share, _CONFIDENCE),
        job=job,
    ).to_dict()


def judged_status(
    result: CheckResult, report: AccuracyReport, judgement: Judgement, accuracy: AccuracySpec
) -> dict[str, Any]:
    """The status of a check that has measured."""
    reason = judged_reason(judgement)
    return AccuracyStatus(
        candidate=result.words,
        state=AccuracyState.JUDGED,
        verdict=judgement.verdict,
        reason=reason.value if reason else None,
        message=judgement.message,
        max_drop=accuracy.max_drop,
        confidence_percent=_percent(report.confidence),
        prompts=report.prompts,
        needed_prompts=judgement.needed_prompts,
        answers=_answers(report.answers) if report.answers else None,
        likelihood=_likelihood(report.likelihood) if report.likelihood else None,
        engine=report.engine_kind,
        finished_time=result.finished_at,
    ).to_dict()


def judged_reason(judgement: Judgement) -> Reason | None:
    """The reason that a verdict is told by; None for Pass, which needs none."""
    return _REASONS.get(judgement.verdict)


def _answers(figures: AnswerFigures) -> AccuracyAnswers:
    return AccuracyAnswers(
        compared=figures.compared,
        baseline_right=figures.baseline_right,
        candidate_right=figures.candidate_right,
        lost=figures.lost,
        gained=figures.gained,
        changed_by_noise=figures.changed_by_noise,
        drop_percent=_percent(figures.drop),
        at_least_percent=_percent(figures.drop_low),
        at_most_percent=_percent(figures.drop_high),
    )


def _likelihood(figures: LikelihoodFigures) -> AccuracyLikelihood:
    return AccuracyLikelihood(
        prompts=figures.prompts,
        tokens=figures.tokens,
        drop_percent=_percent(figures.drop),
        at_least_percent=_known(figures.drop_low),
        at_most_percent=_known(figures.drop_high),
        noise_percent=_known(figures.noise),
    )


def _known(share: float | None) -> float | None:
    return None if share is None else _percent(share)


def _percent(share: float) -> float:
    return round(max(-MOST_PERCENT, min(MOST_PERCENT, 100 * share)), 3)
