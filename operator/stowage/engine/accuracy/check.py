"""The accuracy check of a lossy plan: when it is made, what came of it, and whether the plan may be taken.

A lossy plan (the contender) is taken only after a check on the user's own prompts has shown that no more is lost than
spec.precision.accuracy.maxDrop. Until then the lossless plan serves, where there is one. A check that has measured is
never repeated for the same checkpoint, number formats, commit and prompts; one that could not measure is tried again,
a few times. Nothing here is remembered but in the AccuracyRecord, and nothing is read from status.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from stowage.api.conditions import Reason, rfc3339
from stowage.api.v1alpha1 import AccuracyState, AccuracyVerdict, LLMDeploymentSpec
from stowage.engine.accuracy.checking import Checking, scope_of
from stowage.engine.accuracy.job_state import find_job, read_job
from stowage.engine.accuracy.record import AccuracyRecord, CheckResult, Contender
from stowage.engine.accuracy.retry import due_at, is_due
from stowage.engine.accuracy.room import obstacle_to_check
from stowage.engine.accuracy.status import judged_reason, judged_status, open_status
from stowage.engine.accuracy.verdict import judge
from stowage.engine.situation import Situation
from stowage.planning.plan import Plan
from stowage.render.accuracy_job import (
    Comparison,
    accuracy_config_map,
    accuracy_job,
    accuracy_job_name,
)
from stowage.world import EventIntent

_ROOM_RETRY: Final = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class AccuracyStep:
    """`record` is to be written down. `promoted` may be taken now. `sentence` and `reason` belong to Planned."""

    record: AccuracyRecord
    promoted: Contender | None = None
    failed: bool = False
    status: Mapping[str, Any] | None = None
    objects: tuple[Mapping[str, Any], ...] = ()
    job: str | None = None
    sentence: str = ""
    reason: Reason | None = None
    events: tuple[EventIntent, ...] = ()
    retry_after: timedelta | None = None


def judged_keys(
    record: AccuracyRecord, spec: LLMDeploymentSpec, commit: str, verdict: AccuracyVerdict
) -> frozenset[str]:
    """Accuracy keys of the plans to which the checks on these prompts and this commit gave that verdict."""
    accuracy = spec.precision.accuracy
    if accuracy is None:
        return frozenset()
    scope, limit = scope_of(accuracy, commit), accuracy.max_drop_share
    return frozenset(
        each.candidate
        for each in record.results
        if each.scope == scope and each.report and judge(each.report, limit).verdict is verdict
    )


def served_step(
    situation: Situation, spec: LLMDeploymentSpec, plan: Plan | None, commit: str
) -> AccuracyStep:
    """The step where nothing waits for a check: it shows what the served plan has passed, or the newest failure."""
    record = replace(situation.accuracy, contender=None)
    accuracy = spec.precision.accuracy
    if accuracy is None:
        return AccuracyStep(AccuracyRecord())
    key = plan.accuracy_key() if plan is not None and plan.lossy else None
    scope = scope_of(accuracy, commit)
    for result in reversed(record.results):
        shown = result.scope == scope if key is None else result.candidate == key
        if result.report is not None and shown:
            judgement = judge(result.report, accuracy.max_drop_share)
            return AccuracyStep(record, status=judged_status(result, result.report, judgement, accuracy))
    return AccuracyStep(record)


def check(situation: Situation, spec: LLMDeploymentSpec, what: Checking, now: datetime) -> AccuracyStep:
    """Bring the check of a contender one step further, or say what it has shown."""
    record = replace(situation.accuracy, contender=what.contender)
    known = record.result(what.check_id)
    if known is not None and known.report is not None:
        return _judged(record, what, known)
    attempts = known.attempts if known else 0
    attempt = what.attempt_id(attempts)
    name = accuracy_job_name(situation.name, attempt)
    job = find_job(situation, name)
    if job is None:
        return _not_running(situation, spec, what, known, now)
    state = read_job(situation, job, attempt)
    if state.doing is not None:
        return _open(record, what, AccuracyState.RUNNING, state.doing, job=name)
    result = CheckResult(
        check_id=what.check_id,
        candidate=what.contender.plan.accuracy_key(),
        scope=what.scope,
        words=what.words,
        finished_at=rfc3339(now),
        report=state.report,
        failure=state.failure,
        attempts=attempts + 1,
    )
    record = record.with_result(result)
    if result.report is None:
        return _unmeasured(record, what, result, now, news=True)
    return _judged(record, what, result, news=True)


def _not_running(
    situation: Situation,
    spec: LLMDeploymentSpec,
    what: Checking,
    known: CheckResult | None,
    now: datetime,
) -> AccuracyStep:
    record = replace(situation.accuracy, contender=what.contender)
    if known is not None and not is_due(known, now):
        return _unmeasured(record, what, known, now)
    attempt = what.attempt_id(known.attempts if known else 0)
    comparison = Comparison(attempt, what.contender.plan, what.baseline, what.accuracy)
    obstacle = obstacle_to_check(situation, spec, comparison)
    if obstacle is not None:
        step = _open(record, what, AccuracyState.WAITING, obstacle)
        return replace(step, retry_after=_ROOM_RETRY)
    options, resource = situation.world.options, situation.resource
    objects = (
        accuracy_config_map(resource, spec, comparison, options),
        accuracy_job(resource, spec, comparison, options),
    )
    name = accuracy_job_name(situation.name, attempt)
    step = _open(record, what, AccuracyState.RUNNING, "The check's Job is being made.", job=name)
    return replace(step, objects=objects)


def _open(
    record: AccuracyRecord, what: Checking, state: AccuracyState, message: str, job: str | None = None
) -> AccuracyStep:
    verb = "waits" if state is AccuracyState.WAITING else "runs"
    return AccuracyStep(
        record,
        status=open_status(what.words, state, message, what.accuracy, job),
        job=job,
        sentence=f"The accuracy check of {what.words} {verb}: {message}",
        reason=Reason.ACCURACY_CHECK_PENDING,
    )


def _judged(
    record: AccuracyRecord, what: Checking, result: CheckResult, *, news: bool = False
) -> AccuracyStep:
    if result.report is None:
        raise ValueError("only a result with a report can be judged")
    judgement = judge(result.report, what.accuracy.max_drop_share)
    passed = judgement.verdict is AccuracyVerdict.PASS
    sentence = f"The accuracy check of {what.words}: {judgement.verdict.value}. {judgement.message}"
    reason = judged_reason(judgement)
    return AccuracyStep(
        record,
        promoted=what.contender if passed else None,
        failed=judgement.verdict is AccuracyVerdict.FAIL,
        status=judged_status(result, result.report, judgement, what.accuracy),
        sentence=sentence,
        reason=reason,
        events=(_event(sentence, reason or Reason.FITS, good=passed),) if news else (),
    )


def _unmeasured(
    record: AccuracyRecord, what: Checking, result: CheckResult, now: datetime, *, news: bool = False
) -> AccuracyStep:
    """A check that could not measure: the contender waits, and the check is tried again where that may help."""
    name, message = result.failure or (Reason.ENGINE_EXITED.value, "The check left no result.")
    due = due_at(result)
    again = "It is not tried again; change the spec to do so." if due is None else "It is tried again."
    step = _open(record, what, AccuracyState.WAITING, f"It could not be carried out. {message} {again}")
    reason = _reason(name)
    status = {**(step.status or {}), "reason": reason.value}
    if due is None:
        # Nothing was shown, and nothing more is going to be.
        status |= {"state": AccuracyState.JUDGED.value, "verdict": AccuracyVerdict.INCONCLUSIVE.value}
        status["finishedTime"] = result.finished_at
    return replace(
        step,
        status=status,
        reason=reason if reason is Reason.INVALID_PROMPTS else step.reason,
        events=(_event(step.sentence, reason, good=False),) if news else (),
        retry_after=max(due - now, timedelta(seconds=1)) if due else None,
    )


def _reason(name: str) -> Reason:
    try:
        return Reason(name)
    except ValueError:
        return Reason.ENGINE_EXITED


def _event(note: str, reason: Reason, *, good: bool) -> EventIntent:
    kind = "Normal" if good else "Warning"
    return EventIntent(type=kind, reason=reason.value, action="CheckAccuracy", note=note[:1024])


def unneeded_jobs(situation: Situation, job: str | None) -> list[str]:
    """Names of our Jobs that still run though nobody waits for what they measure; ended ones go by themselves."""
    return [
        ref.name
        for ref, obj in situation.children("Job")
        if ref.name != job and read_job(situation, obj, "").doing is not None
    ]
