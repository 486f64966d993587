"""The whole operator, as one pure function.

Level-triggered: the function sees the state of the world, never what changed in it. It may be called at any time, any
number of times; called twice with the same World it says the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from stowage.api.refusal import Refusal
from stowage.engine.decision import Decision, decide
from stowage.engine.events import transition_events
from stowage.engine.objects import accuracy_objects, inspection_objects, serving_objects, surplus_objects
from stowage.engine.record import InForce
from stowage.engine.rollout import Rollout, decide_rollout
from stowage.engine.serving import read_serving
from stowage.engine.situation import Situation, read_situation
from stowage.engine.status import compose_status
from stowage.world import Outcome, World

_TURN_RETRY = timedelta(seconds=1)


def reconcile(world: World, now: datetime) -> Outcome:
    """Decide what to do about one LLMDeployment.

    An object that is being deleted gets nothing any more: the garbage collector follows the owner references.
    """
    if world.resource is None or world.resource["metadata"].get("deletionTimestamp"):
        return Outcome(planned=True)
    situation = read_situation(world, world.resource)
    decision = decide(situation, now)
    target, rollout = _target_and_rollout(situation, decision)
    accuracy = decision.accuracy
    objects = _objects(situation, decision, target, rollout)
    serving = read_serving(situation, target, rollout, now) if target and rollout else None
    status = compose_status(situation, decision, serving, now)
    seen = decision.review
    return Outcome(
        apply=objects,
        delete=surplus_objects(situation, objects, decision),
        status=status,
        events=(
            *transition_events(world.resource, status),
            *(accuracy.events if accuracy else ()),
            *(seen.events if seen else ()),
        ),
        resolve=decision.query,
        planned=decision.is_final,
        reviewed=world.review and (seen is None or seen.done),
        requeue_after=_requeue_after(situation, decision, status, now),
    )


def _target_and_rollout(situation: Situation, decision: Decision) -> tuple[InForce | None, Rollout | None]:
    """The target and how it is rolled out; a rollout that must wait leaves the plan in force as the target."""
    target = decision.target
    if target is None:
        return None, None
    rollout = decide_rollout(situation, target)
    record = situation.in_force
    if rollout.held and record is not None:
        return record, replace(decide_rollout(situation, record), held=rollout.held)
    return target, rollout


def _objects(
    situation: Situation, decision: Decision, target: InForce | None, rollout: Rollout | None
) -> tuple[Mapping[str, Any], ...]:
    serving = serving_objects(situation, target, rollout, decision) if target and rollout else ()
    serving = (*serving, *accuracy_objects(situation, decision, has_workload=bool(serving)))
    if isinstance(situation.spec, Refusal):
        return serving
    return (*serving, *inspection_objects(situation, situation.spec, decision.query))


def _requeue_after(
    situation: Situation, decision: Decision, status: Mapping[str, Any], now: datetime
) -> timedelta | None:
    """When to look again although nothing has happened; everything else arrives as a change of the World."""
    waits: list[timedelta] = []
    if situation.world.ahead and decision.planned.status is None:
        waits.append(_TURN_RETRY)
    if decision.retry_at is not None and decision.retry_at > now:
        # Once it is due the shell is asking again, and its answer is news.
        waits.append(decision.retry_at - now)
    if decision.accuracy is not None and decision.accuracy.retry_after is not None:
        waits.append(decision.accuracy.retry_after)
    if status.get("utilization"):
        waits.append(situation.world.options.status_interval)
    return min(waits, default=None)
