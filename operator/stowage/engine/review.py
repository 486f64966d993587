"""What is looked at while the plan in force stays: what its start-ups measured, and whether a new plan would be better.

Neither ever changes what serves. A better plan is looked for when the World says that a review is due, which is
rarely, so that GPUs that come and go do not tick in status; it is shown with what it brings and how to take it, told
in one event for each finding, and withdrawn by the next review that does not find it any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from stowage.api.conditions import Reason
from stowage.api.v1alpha1 import LLMDeploymentSpec, PlanBetter, PlanStatus
from stowage.engine.better_record import BetterRecord
from stowage.engine.inputs import plan_inputs
from stowage.engine.model_step import ModelStep, resolve_model
from stowage.engine.plan_step import plan_request
from stowage.engine.record import InForce
from stowage.engine.room import released_room
from stowage.engine.situation import Situation
from stowage.engine.start_up_record import StartUp
from stowage.engine.start_ups import has_new_start_ups, with_new_start_ups
from stowage.model.profile import ModelProfile
from stowage.planning.explain.status import better_plan
from stowage.planning.plan import Plan, plan
from stowage.planning.search.gain import gain
from stowage.render.canonical import digest
from stowage.world import EventIntent, ModelQuery

_VISIBLE_POINTS = 10
"""Percentage points by which a change must have moved before the words of a known finding are written anew."""


@dataclass(frozen=True, slots=True)
class Review:
    """What came of it: records to be written down, what to tell and to ask; `done` where a due review was made."""

    better: BetterRecord
    start_ups: tuple[StartUp, ...]
    events: tuple[EventIntent, ...] = ()
    query: ModelQuery | None = None
    done: bool = False


def about(spec: LLMDeploymentSpec, plan: Plan) -> str:
    """Name the plan in force and the wish that a finding is about."""
    return digest([plan_inputs(spec), plan.digest()])


def review(situation: Situation, spec: LLMDeploymentSpec, record: InForce, now: datetime) -> Review:
    """Look at a plan that stays in force."""
    better = situation.better.of(about(spec, record.plan))
    due = situation.world.review and not situation.world.ahead
    quiet = Review(better, situation.start_ups, done=due)
    if not (due and _can_be_better(situation, record)) and not has_new_start_ups(situation):
        return quiet
    model = resolve_model(situation, spec)
    if model.profile is None:
        return _without_model(quiet, model, now)
    start_ups = with_new_start_ups(situation, model)
    if not due or not _can_be_better(situation, record):
        return replace(quiet, start_ups=start_ups)
    found = _find(situation, spec, record, model.profile, model)
    told = found is None or found.replan in better.told
    after = better.showing(_steady(better.shown, found))
    return Review(after, start_ups, () if told or found is None else (_event(found),), done=True)


def with_better(status_plan: Mapping[str, Any] | None, better: BetterRecord) -> Mapping[str, Any] | None:
    """Show a finding in status.plan; it is the first thing to be left out where that would be too long."""
    if status_plan is None or better.shown is None:
        return status_plan
    shown = PlanStatus.model_validate({**status_plan, "better": better.shown.to_dict()})
    return shown.within_limit().to_dict()


def _can_be_better(situation: Situation, record: InForce) -> bool:
    """Nothing runs at zero replicas, and among CPU nodes there is nothing to choose."""
    return situation.replicas > 0 and record.plan.gpu_product is not None


def _without_model(quiet: Review, model: ModelStep, now: datetime) -> Review:
    """Ask for the model where the operator can read it by itself; no pod is started for a mere look.

    What cannot be looked at again is not shown any more; while the answer is on its way, or fails to come, what is
    known stands.
    """
    query, pending = model.query, model.verdict.status is None
    if query is not None and query.inspection_pod is not None:
        return replace(quiet, better=replace(quiet.better, shown=None)) if quiet.done else quiet
    if pending:
        return replace(quiet, query=query, done=False)
    retry = quiet.done and model.retry_at is not None and model.retry_at <= now
    return replace(quiet, query=query if retry else None)


def _find(
    situation: Situation,
    spec: LLMDeploymentSpec,
    record: InForce,
    profile: ModelProfile,
    model: ModelStep,
) -> PlanBetter | None:
    """Search anew, with the release that serves: another default release is no better plan."""
    request = replace(
        plan_request(situation, spec, profile, model),
        in_force=record.plan,
        default_engine_version=record.plan.engine_version,
    )
    result = plan(request, released_room(situation))
    kept, new = result.plan, result.better
    if new is None and kept is not None and _gives_way(record.plan, kept):
        kept, new = record.plan, kept
    if kept is None or new is None or new.digest() == record.plan.digest():
        return None
    token = f"r{digest([_offer(new), spec.replan], 8)}"
    shown = better_plan(kept, new)
    return shown.model_copy(update={"replan": token, "take": _how(situation, token)})


def _gives_way(old: Plan, new: Plan) -> bool:
    """Whether the plan in force, judged as of now, would not be kept, and the new one is worth telling.

    It misses objectives that the new one meets, fits only if every estimate turns out well, or is dearer by a tenth.
    """
    doubt = (old.ledger.verdict, new.ledger.verdict) == ("Tight", "Fits")
    cost = gain(old, new).cost_percent
    return len(new.shortfall) < len(old.shortfall) or doubt or (cost is not None and cost <= -_VISIBLE_POINTS)


def _offer(new: Plan) -> list[Any]:
    """What people would call another plan; limits that follow from it may move without making it another one."""
    settings = new.settings
    return [
        [new.gpu_product, new.gpu_resource, new.gpus_per_replica, new.nodes_per_replica],
        [settings.tensor_parallel_size, settings.pipeline_parallel_size, settings.data_parallel_size],
        [settings.enable_expert_parallel, settings.dtype, settings.quantization, settings.kv_cache_dtype],
        [new.model_source, new.engine_version],
    ]


def _how(situation: Situation, token: str) -> str:
    metadata = situation.resource["metadata"]
    patch = f'{{"spec":{{"replan":"{token}"}}}}'
    return (
        f"Set spec.replan to {token} (kubectl patch llmd {metadata['name']} -n {metadata['namespace']} --type merge "
        f"-p '{patch}'); the replicas are then replaced as spec.rollout says."
    )


def _steady(before: PlanBetter | None, found: PlanBetter | None) -> PlanBetter | None:
    """Keep the words of a known finding unless it has come to bring something visibly else."""
    if before is None or found is None or before.replan != found.replan:
        return found
    pairs = zip(_percents(before), _percents(found), strict=True)
    moved = any((old is None) != (new is None) or _apart(old, new) for old, new in pairs)
    return found if moved else before


def _apart(old: int | None, new: int | None) -> bool:
    return old is not None and new is not None and abs(new - old) >= _VISIBLE_POINTS


def _percents(shown: PlanBetter) -> tuple[int | None, ...]:
    return shown.cost_percent, shown.ttft_percent, shown.tpot_percent, shown.throughput_percent


def _event(found: PlanBetter) -> EventIntent:
    note = f"{found.plan} would be better: {found.brings}. The plan in force is kept. {found.take}"
    return EventIntent("Normal", Reason.BETTER_PLAN_FOUND.value, "Plan", note[:1024])
