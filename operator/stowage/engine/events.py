"""Events: one per transition that a person would want to see, never one per reconciliation.

A transition is a condition whose status or reason has changed against what is published. A lost status repeats an
event at most once; the recorder drops repetitions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stowage.api.conditions import Condition, ConditionType, Reason, find_condition, parse_conditions
from stowage.world import EventIntent

_TOLD = (ConditionType.ACCEPTED, ConditionType.PLANNED, ConditionType.DEGRADED, ConditionType.READY)
_QUIET = frozenset({Reason.RECONCILING, Reason.RESOLVING_MODEL, Reason.AS_EXPECTED, Reason.NOT_ACCEPTED})
_ACTIONS: Mapping[ConditionType, str] = {
    ConditionType.ACCEPTED: "Accept",
    ConditionType.PLANNED: "Plan",
    ConditionType.DEGRADED: "Diagnose",
    ConditionType.READY: "Serve",
}


def transition_events(resource: Mapping[str, Any], status: Mapping[str, Any]) -> tuple[EventIntent, ...]:
    """Events for what has changed between the published status and the new one."""
    before = parse_conditions((resource.get("status") or {}).get("conditions"))
    after = parse_conditions(status.get("conditions"))
    events: dict[str, EventIntent] = {}
    for kind in _TOLD:
        event = _event(find_condition(before, kind), find_condition(after, kind))
        if event is not None:
            # Ready repeats the cause of another condition: the same reason is told once.
            events.setdefault(event.reason, event)
    return tuple(events.values())


def _event(before: Condition | None, after: Condition | None) -> EventIntent | None:
    if after is None or after.reason in _QUIET:
        return None
    if before is not None and (before.status, before.reason) == (after.status, after.reason):
        return None
    if after.type is ConditionType.READY and not after.is_true and before is None:
        return None
    good = after.is_true is (after.type is not ConditionType.DEGRADED)
    under_way = after.type is ConditionType.READY and not after.is_true
    return EventIntent(
        type="Normal" if good or under_way else "Warning",
        reason=after.reason,
        action=_ACTIONS[after.type],
        note=after.message[:1024],
    )
