"""The decision for one LLMDeployment: accepted or not, planned or not, and what should serve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.api.v1alpha1 import LLMDeploymentSpec
from stowage.engine.accuracy.check import AccuracyStep
from stowage.engine.accuracy.step import checked
from stowage.engine.inputs import plan_inputs
from stowage.engine.model_step import ModelStep, resolve_model
from stowage.engine.plan_step import PlanStep, keep_plan, make_plan, plan_in_force_fits
from stowage.engine.record import InForce
from stowage.engine.review import Review, review, with_better
from stowage.engine.situation import Situation
from stowage.engine.target import make_target
from stowage.engine.verdict import Verdict
from stowage.world import ModelQuery


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided.

    `target` is what the replicas are made from: the new plan, the plan in force where the new spec cannot be fulfilled,
    or None. `status_plan` is what `status.plan` shows. `query` is the model question that is still open. `accuracy` is
    None where nothing is known about a lossy plan, so that what is remembered of one stays as it is. `review` is set
    where the plan in force stays.
    """

    accepted: Verdict
    planned: Verdict
    target: InForce | None = None
    status_plan: Mapping[str, Any] | None = None
    query: ModelQuery | None = None
    retry_at: datetime | None = None
    accuracy: AccuracyStep | None = None
    review: Review | None = None

    @property
    def is_final(self) -> bool:
        """Whether this object has had its verdict, so that younger ones may be planned."""
        return self.planned.status is not None or self.accepted.status is False


def decide(situation: Situation, now: datetime) -> Decision:
    """Accept, resolve and plan; whatever fails leaves the plan in force serving."""
    spec = situation.spec
    if isinstance(spec, Refusal):
        return _unaccepted(situation, Verdict.refused(spec))
    decision = _decide_valid(situation, spec, now)
    if situation.world.taken:
        # The objects stay wanted, so that the shell looks again whether the name has become free.
        return replace(decision, accepted=_name_taken(situation))
    return decision


def _decide_valid(situation: Situation, spec: LLMDeploymentSpec, now: datetime) -> Decision:
    inputs = plan_inputs(spec)
    if plan_in_force_fits(situation, inputs):
        return _reviewed(situation, spec, _kept(situation, spec, now), now)
    model = resolve_model(situation, spec)
    if model.profile is None:
        return _unaccepted(situation, model.verdict, model)
    step = make_plan(situation, spec, model.profile, model)
    return _planned(situation, spec, model.verdict, *checked(situation, spec, step, now))


def _reviewed(situation: Situation, spec: LLMDeploymentSpec, decision: Decision, now: datetime) -> Decision:
    """Add what is to be seen while the plan in force stays; a lossy one that was promoted just now takes its place."""
    record = situation.in_force
    if record is None or decision.target is None or decision.target.plan.digest() != record.plan.digest():
        return decision
    found = review(situation, spec, record, now)
    return replace(
        decision,
        review=found,
        query=decision.query or found.query,
        status_plan=with_better(decision.status_plan, found.better),
    )


def _kept(situation: Situation, spec: LLMDeploymentSpec, now: datetime) -> Decision:
    """The plan in force stays; a lossy plan that failed its check may have a successor, which is looked for once."""
    valid = Verdict(True, Reason.VALID, f"{spec.model.source} is supported.")
    kept = keep_plan(situation)
    step, accuracy = checked(situation, spec, kept, now)
    if not accuracy.failed or situation.world.ahead:
        return _planned(situation, spec, valid, step, accuracy)
    model = resolve_model(situation, spec)
    if model.profile is not None:
        known = replace(situation, accuracy=accuracy.record)
        successor = make_plan(known, spec, model.profile, model).contender
        known = replace(situation, accuracy=replace(accuracy.record, contender=successor))
        step, following = checked(known, spec, replace(kept, contender=successor), now)
        accuracy = replace(following, events=(*accuracy.events, *following.events))
    decision = _planned(situation, spec, valid, step, accuracy)
    return replace(decision, query=model.query, retry_at=model.retry_at)


def _unaccepted(situation: Situation, verdict: Verdict, model: ModelStep | None = None) -> Decision:
    waiting = verdict.status is None
    planned = Verdict(
        None if waiting else False,
        Reason.RESOLVING_MODEL if waiting else Reason.NOT_ACCEPTED,
        "There is no plan yet: the model is being read."
        if waiting
        else "There is no plan: see condition Accepted.",
    )
    record = situation.in_force
    return Decision(
        accepted=verdict,
        planned=planned,
        target=record,
        status_plan=record.status_plan if record else None,
        query=model.query if model else None,
        retry_at=model.retry_at if model else None,
    )


def _planned(
    situation: Situation,
    spec: LLMDeploymentSpec,
    accepted: Verdict,
    step: PlanStep,
    accuracy: AccuracyStep | None,
) -> Decision:
    record = situation.in_force
    if step.plan is None:
        shown = record.status_plan if record and step.status_plan is None else step.status_plan
        return Decision(accepted, step.verdict, target=record, status_plan=shown, accuracy=accuracy)
    if spec.mode == "Plan":
        return Decision(accepted, step.verdict, status_plan=step.status_plan, accuracy=accuracy)
    target = make_target(situation, spec, step.plan, step.status_plan or {})
    return Decision(accepted, step.verdict, target, step.status_plan, accuracy=accuracy)


def _name_taken(situation: Situation) -> Verdict:
    names = "; ".join(
        f"{ref.kind} {ref.name} ({owner})" for ref, owner in sorted(situation.world.taken.items())
    )
    message = (
        f"Not made by Stowage, but holding a name it needs: {names}. Rename or delete it, "
        "or rename the LLMDeployment."
    )
    return Verdict(False, Reason.NAME_TAKEN, message)
