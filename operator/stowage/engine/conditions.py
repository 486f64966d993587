"""The conditions of one LLMDeployment, from the decision and the state of its replicas."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from stowage.api.conditions import (
    Condition,
    ConditionType,
    Reason,
    condition,
    merge_conditions,
    parse_conditions,
    summarize,
)
from stowage.engine.decision import Decision
from stowage.engine.rollout import replacing_in_place
from stowage.engine.serving import Serving
from stowage.engine.situation import Situation
from stowage.engine.verdict import Verdict
from stowage.render.names import AGENT_PORT


@dataclass(frozen=True, slots=True)
class Verdicts:
    """One verdict per condition type but Ready, which summarises them."""

    progressing: Verdict
    available: Verdict
    able_to_scale: Verdict
    scaling_active: Verdict
    degraded: Verdict


def compose_conditions(
    situation: Situation, decision: Decision, serving: Serving | None, now: datetime
) -> tuple[Condition, ...]:
    """All conditions; `lastTransitionTime` is kept where the status did not change."""
    verdicts = _serving_verdicts(situation, decision, serving) if serving else _idle_verdicts(decision)
    parts = {
        ConditionType.ACCEPTED: decision.accepted,
        ConditionType.PLANNED: decision.planned,
        ConditionType.PROGRESSING: verdicts.progressing,
        ConditionType.AVAILABLE: verdicts.available,
        ConditionType.ABLE_TO_SCALE: verdicts.able_to_scale,
        ConditionType.SCALING_ACTIVE: verdicts.scaling_active,
        ConditionType.DEGRADED: verdicts.degraded,
    }
    generation = situation.generation
    current = tuple(
        condition(kind, verdict.status, verdict.reason, verdict.message, generation=generation, now=now)
        for kind, verdict in parts.items()
    )
    ready = _ready(situation, current, serving, now)
    previous = parse_conditions((situation.resource.get("status") or {}).get("conditions"))
    return merge_conditions(previous, (*current, ready))


def _ready(
    situation: Situation, current: tuple[Condition, ...], serving: Serving | None, now: datetime
) -> Condition:
    generation = situation.generation
    message = _serving_message(serving) if serving else ""
    ready = summarize(current, generation=generation, now=now, serving_message=message)
    if serving is None or not ready.is_true or (serving.current and serving.rollout.held is None):
        return ready
    # Old replicas serve while the new template comes up: available, but not yet what this generation asks for.
    progressing = next(item for item in current if item.type is ConditionType.PROGRESSING)
    reason = Reason(progressing.reason)
    return condition(ConditionType.READY, False, reason, progressing.message, generation=generation, now=now)


def _serving_message(serving: Serving) -> str:
    plan = serving.target.plan
    where = f"{plan.gpus_per_replica}x {plan.gpu_product} each" if plan.gpu_product else "CPU"
    return f"{serving.ready} of {serving.wanted} replicas serve on {where}."


def _idle_verdicts(decision: Decision) -> Verdicts:
    """Nothing runs and nothing is meant to, for one of three causes."""
    if not decision.accepted.status:
        unknown = decision.accepted.status is None
        reason = Reason.RECONCILING if unknown else Reason.NOT_ACCEPTED
        idle = Verdict(None if unknown else False, reason, "Nothing runs: see condition Accepted.")
    elif not decision.planned.status:
        unknown = decision.planned.status is None
        reason = Reason.RECONCILING if unknown else Reason.NOT_PLANNED
        idle = Verdict(None if unknown else False, reason, "Nothing runs: see condition Planned.")
    else:
        idle = Verdict(
            False, Reason.PLAN_ONLY, "spec.mode is Plan: the plan is made and nothing is launched."
        )
    fine = Verdict(False, Reason.AS_EXPECTED, "Nothing is known to be wrong.")
    return Verdicts(idle, idle, idle, idle, fine)


def _serving_verdicts(situation: Situation, decision: Decision, serving: Serving) -> Verdicts:
    external = "spec.replicas is obeyed, whoever writes it."
    if serving.wanted > situation.replicas:
        external = (
            f"spec.workload.requestsPerSecond takes {serving.wanted} replicas, more than the {situation.replicas} of "
            "spec.replicas; above that, spec.replicas is obeyed, whoever writes it."
        )
    return Verdicts(
        progressing=_progressing(situation, serving),
        available=_available(serving),
        able_to_scale=serving.rollout.able_to_scale,
        scaling_active=Verdict(False, Reason.SCALED_EXTERNALLY, external),
        degraded=_degraded(decision, serving),
    )


def _available(serving: Serving) -> Verdict:
    if serving.ready:
        message = f"{serving.ready} of {serving.wanted} replicas are serving."
        return Verdict(True, Reason.MINIMUM_REPLICAS_AVAILABLE, message)
    if serving.wanted == 0:
        return Verdict(False, Reason.SCALED_TO_ZERO, "spec.replicas is 0: no replica runs.")
    return Verdict(
        False, Reason.MINIMUM_REPLICAS_UNAVAILABLE, f"None of {serving.wanted} replicas is serving."
    )


def _progressing(situation: Situation, serving: Serving) -> Verdict:
    if serving.rollout.held is not None:
        return serving.rollout.held
    if serving.complete:
        if serving.wanted == 0:
            return Verdict(False, Reason.SCALED_TO_ZERO, "spec.replicas is 0: no replica runs.")
        return Verdict(
            False, Reason.COMPLETE, f"{serving.ready} of {serving.wanted} replicas run the current plan."
        )
    if serving.problem is not None:
        return Verdict(False, serving.problem.reason, serving.problem.message)
    if serving.ready and not serving.current:
        return _replacing(situation, serving)
    if serving.progress is not None:
        return Verdict(True, serving.progress.reason, serving.progress.message)
    return Verdict(True, Reason.SCALING, f"{serving.ready} of {serving.wanted} replicas are serving.")


def _replacing(situation: Situation, serving: Serving) -> Verdict:
    detail = f" {serving.progress.message}" if serving.progress else ""
    if replacing_in_place(situation):
        message = "No spare place exists: each replica stops before its successor starts."
        return Verdict(True, Reason.REPLACING_IN_PLACE, message + detail)
    return Verdict(
        True, Reason.ROLLING_OUT, "Replicas of the new template start before old ones stop." + detail
    )


def _degraded(decision: Decision, serving: Serving) -> Verdict:
    if serving.problem is not None:
        return Verdict(True, serving.problem.reason, serving.problem.message)
    if decision.accepted.status is False or decision.planned.status is False:
        cause = decision.accepted if decision.accepted.status is False else decision.planned
        message = f"The last plan that could be made goes on; the current spec: {cause.message}"
        return Verdict(True, Reason.PREVIOUS_PLAN_SERVING, message)
    if serving.silent:
        message = (
            f"The agents of these replicas do not answer on port {AGENT_PORT}: {', '.join(serving.silent)}."
        )
        return Verdict(True, Reason.REPORT_UNAVAILABLE, message)
    below = _kv_below_plan(serving)
    if below:
        return Verdict(True, Reason.KV_CACHE_BELOW_PLAN, below)
    return Verdict(False, Reason.AS_EXPECTED, "Nothing is known to be wrong.")


def _kv_below_plan(serving: Serving) -> str:
    ledger = serving.target.plan.ledger
    measured = [item.report.engine.kv_cache_tokens for item in serving.current_reports]
    known = [tokens for tokens in measured if tokens is not None]
    if not known or ledger.kv_bytes_per_token <= 0:
        return ""
    expected_at_least = ledger.kv_cache_band.low // ledger.kv_bytes_per_token
    if min(known) >= expected_at_least - ledger.block_size:
        return ""
    return (
        f"The engine reports {min(known):,} KV-cache tokens; the plan's band begins at {expected_at_least:,}."
    )
