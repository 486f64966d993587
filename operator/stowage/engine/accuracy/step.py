"""Step three: whether a lossy plan may be taken now. Joins a planning step with what its accuracy check has shown."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from stowage.api.conditions import Reason
from stowage.api.v1alpha1 import LLMDeploymentSpec
from stowage.engine.accuracy.check import AccuracyStep, check, served_step
from stowage.engine.accuracy.checking import Checking
from stowage.engine.accuracy.record import Contender
from stowage.engine.plan_step import PlanStep
from stowage.engine.room import released_room
from stowage.engine.situation import Situation
from stowage.engine.verdict import Verdict
from stowage.planning.placement import place_replicas


def checked(
    situation: Situation, spec: LLMDeploymentSpec, step: PlanStep, now: datetime
) -> tuple[PlanStep, AccuracyStep]:
    """The planning step with a contender that has passed in the place of the plan, and the state of the check.

    A plan that is lossy itself is never a baseline: losses would add up unseen.
    """
    accuracy, contender = spec.precision.accuracy, step.contender
    if accuracy is None or contender is None or (step.plan is not None and step.plan.lossy):
        return step, served_step(situation, spec, step.plan, step.commit)
    found = check(situation, spec, Checking(accuracy, contender, step.plan, step.commit), now)
    if found.promoted is None:
        return _with_sentence(step, found), found
    if situation.replicas and not place_replicas(contender.plan, released_room(situation), 1):
        sentence = f"{found.sentence} It is not taken yet: no node has a place for one of its replicas."
        return _with_sentence(step, replace(found, sentence=sentence)), found
    return _taken(contender, step.commit), found


def _taken(contender: Contender, commit: str) -> PlanStep:
    summary = str(contender.status_plan.get("summary", ""))
    return PlanStep(Verdict(True, Reason.FITS, summary), contender.plan, contender.status_plan, commit=commit)


def _with_sentence(step: PlanStep, found: AccuracyStep) -> PlanStep:
    verdict = step.verdict
    if step.plan is None and verdict.reason is Reason.ACCURACY_CHECK_PENDING:
        return replace(step, verdict=Verdict(False, found.reason or verdict.reason, found.sentence))
    message = " ".join(part for part in (verdict.message, found.sentence) if part)
    return replace(step, verdict=Verdict(verdict.status, verdict.reason, message))
