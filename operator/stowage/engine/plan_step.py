"""Step two: which shape. Keeps the plan in force, or makes a new one.

A serving plan changes only when its inputs change or when it no longer fits: no replica runs and none could be
placed. A node that appears, a lost status or a newer operator never changes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.api.v1alpha1 import AccuracyVerdict, LLMDeploymentSpec, PlanStatus
from stowage.diagnosis.pod import is_bound
from stowage.engine.accuracy.check import judged_keys
from stowage.engine.accuracy.record import Contender
from stowage.engine.inputs import plan_inputs
from stowage.engine.model_step import ModelStep
from stowage.engine.room import own_room, released_room
from stowage.engine.situation import Situation
from stowage.engine.verdict import Verdict
from stowage.model.profile import ModelProfile
from stowage.planning.explain.status import status_plan
from stowage.planning.placement import place_replicas
from stowage.planning.plan import Plan, PlanRequest, PlanResult, plan

_MOST_NOTES = 16


@dataclass(frozen=True, slots=True)
class PlanStep:
    """The verdict, the plan if there is one, and what `status.plan` should show.

    `contender` is a lossy plan that waits for its accuracy check, `commit` that of the spec's own model.
    """

    verdict: Verdict
    plan: Plan | None = None
    status_plan: Mapping[str, Any] | None = None
    contender: Contender | None = None
    commit: str = ""


def plan_in_force_fits(situation: Situation, inputs: str) -> bool:
    """Whether the recorded plan was made for these inputs and still has, or could get, a place."""
    record = situation.in_force
    if record is None or plan_inputs(record.spec) != inputs:
        return False
    if situation.replicas == 0 or any(is_bound(pod) for pod in situation.world.pods):
        return True
    return bool(place_replicas(record.plan, own_room(situation), 1))


def keep_plan(situation: Situation) -> PlanStep:
    """The step for a plan that stays in force."""
    record = situation.in_force
    if record is None:
        raise ValueError("keep_plan needs a plan in force")
    return PlanStep(
        Verdict(True, Reason.FITS, str(record.status_plan.get("summary", ""))),
        record.plan,
        record.status_plan,
        pending_contender(situation, plan_inputs(record.spec)),
        record.plan.model_revision,
    )


def pending_contender(situation: Situation, inputs: str) -> Contender | None:
    """The lossy plan that was planned for these inputs and does not serve yet."""
    contender, record = situation.accuracy.contender, situation.in_force
    if contender is None or contender.inputs != inputs:
        return None
    serves = record is not None and record.plan.accuracy_key() == contender.plan.accuracy_key()
    return None if serves else contender


def make_plan(
    situation: Situation, spec: LLMDeploymentSpec, profile: ModelProfile, model: ModelStep
) -> PlanStep:
    """Plan on the snapshot, one LLMDeployment at a time in order of age."""
    if situation.world.ahead:
        message = f"Waits for the plan of {situation.world.ahead[0]}, which is older."
        return PlanStep(Verdict(None, Reason.RECONCILING, message))
    commit = profile.revision or ""
    result = plan(plan_request(situation, spec, profile, model), released_room(situation))
    shown, contender = _with_notes(status_plan(result), model.left_out), _contender(result, spec)
    if result.plan is None:
        refusal = result.refusal or Refusal(Reason.INSUFFICIENT_GPUS, "No candidate fits.")
        return PlanStep(_refused(situation, spec, refusal), None, shown, contender, commit)
    verdict = Verdict(True, Reason.FITS, str(shown.get("summary", "")))
    return PlanStep(verdict, result.plan, shown, contender, commit)


def plan_request(
    situation: Situation, spec: LLMDeploymentSpec, profile: ModelProfile, model: ModelStep
) -> PlanRequest:
    """What `plan()` is asked for this LLMDeployment."""
    commit, options = profile.revision or "", situation.world.options
    return PlanRequest(
        spec=spec,
        profile=profile,
        replicas=max(1, situation.replicas),
        default_engine_version=options.default_engine_version,
        prices=options.prices,
        alternatives=model.alternatives,
        passed=judged_keys(situation.accuracy, spec, commit, AccuracyVerdict.PASS),
        failed=judged_keys(situation.accuracy, spec, commit, AccuracyVerdict.FAIL),
        calibration=situation.world.calibration,
    )


def _with_notes(shown: Mapping[str, Any], notes: tuple[str, ...]) -> Mapping[str, Any]:
    """Put further notes before those of the plan."""
    if not notes:
        return shown
    every = [*notes, *shown.get("notes", ())][:_MOST_NOTES]
    return PlanStatus.model_validate({**shown, "notes": every}).within_limit().to_dict()


def _contender(result: PlanResult, spec: LLMDeploymentSpec) -> Contender | None:
    if result.contender is None:
        return None
    taken = replace(result, plan=result.contender, refusal=None, contender=None)
    return Contender(plan_inputs(spec), result.contender, status_plan(taken))


def _refused(situation: Situation, spec: LLMDeploymentSpec, refusal: Refusal) -> Verdict:
    """Tell a wish that cannot be fulfilled from a plan that was fulfilled and has lost its place."""
    record = situation.in_force
    if record is None or plan_inputs(record.spec) != plan_inputs(spec):
        return Verdict.refused(refusal)
    message = f"The plan in force has no place any more, and no other plan has one: {refusal.sentence}"
    return Verdict(False, Reason.PLAN_NO_LONGER_FITS, message)
