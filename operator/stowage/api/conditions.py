"""Conditions: how status says what is true, since when, and why.

The helpers keep `lastTransitionTime` stable (it moves only when a status flips), keep the order fixed, and
form the summary `Ready` with the root cause as its reason. Time enters as an argument; nothing here reads
a clock, and nothing here decides what a condition should say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import Field, ValidationError

from stowage.api.base import Message, StatusModel
from stowage.api.reasons import ConditionType, Reason

__all__ = [
    "Condition",
    "ConditionStatus",
    "ConditionType",
    "Reason",
    "condition",
    "find_condition",
    "merge_conditions",
    "parse_conditions",
    "rfc3339",
    "summarize",
]

_REMARKS: Final = frozenset({Reason.KV_CACHE_BELOW_PLAN, Reason.REPORT_UNAVAILABLE})
"""Reasons of Degraded that a person should read, but that never keep a replica from serving."""

_ORDER: Final = {condition_type: index for index, condition_type in enumerate(ConditionType)}


class ConditionStatus(StrEnum):
    """The three answers that a condition can give."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(StatusModel):
    """One observation about an LLMDeployment, in the form of metav1.Condition."""

    type: ConditionType = Field(description="What is observed.")
    status: ConditionStatus = Field(description="Whether it is so: True, False or Unknown.")
    reason: Annotated[str, Field(min_length=1, max_length=64)] = Field(
        description="Why, as one stable word; docs/reasons.md lists them all."
    )
    message: Message = Field(description="Why, as a sentence for people.")
    observed_generation: int = Field(
        ge=0, le=2**62, description="The metadata.generation that this speaks about."
    )
    last_transition_time: Annotated[str, Field(max_length=64)] = Field(
        description="When status last changed.", json_schema_extra={"format": "date-time"}
    )

    @property
    def is_true(self) -> bool:
        """Whether the status is True."""
        return self.status is ConditionStatus.TRUE


def rfc3339(moment: datetime) -> str:
    """Write a time zone aware moment as the API server does: UTC, whole seconds, Z."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(
    condition_type: ConditionType,
    status: ConditionStatus | bool | None,
    reason: Reason,
    message: str,
    *,
    generation: int,
    now: datetime,
) -> Condition:
    """Make a condition as of `now`; `status` may be a bool, or None for Unknown."""
    if status is None:
        status = ConditionStatus.UNKNOWN
    elif isinstance(status, bool):
        status = ConditionStatus.TRUE if status else ConditionStatus.FALSE
    return Condition(
        type=condition_type,
        status=status,
        reason=reason.value,
        message=message,
        observed_generation=generation,
        last_transition_time=rfc3339(now),
    )


def find_condition(conditions: Iterable[Condition], condition_type: ConditionType) -> Condition | None:
    """Give the condition of that type, or None."""
    return next((entry for entry in conditions if entry.type is condition_type), None)


def merge_conditions(previous: Iterable[Condition], current: Iterable[Condition]) -> tuple[Condition, ...]:
    """Replace previous conditions by current ones of the same type, in the fixed order.

    A condition whose status did not change keeps the previous lastTransitionTime; types that `current` does
    not mention stay as they were.
    """
    merged = {entry.type: entry for entry in previous}
    for entry in current:
        before = merged.get(entry.type)
        if before is not None and before.status is entry.status:
            entry = entry.model_copy(update={"last_transition_time": before.last_transition_time})
        merged[entry.type] = entry
    return tuple(sorted(merged.values(), key=lambda entry: _ORDER[entry.type]))


def parse_conditions(raw: Any) -> tuple[Condition, ...]:
    """Read conditions back from an object's status; entries of unknown type or form are left out."""
    parsed = []
    for entry in raw if isinstance(raw, Sequence) else ():
        try:
            parsed.append(Condition.model_validate(entry))
        except ValidationError:
            continue
    return merge_conditions((), parsed)


def summarize(
    conditions: Iterable[Condition], *, generation: int, now: datetime, serving_message: str
) -> Condition:
    """Form `Ready` from the other conditions for this generation.

    The first of Accepted, Planned, Available that is not True gives status, reason and message. Where only
    Available is missing, the cause is taken from Degraded (True) or Progressing, which know it better; what is only
    worth a remark is no cause.
    A condition of an older generation counts as Unknown. `serving_message` is the message when all is well.
    """
    known = {entry.type: entry for entry in conditions if entry.observed_generation >= generation}
    blocker = _first_blocker(known)
    if blocker is None:
        return condition(
            ConditionType.READY, True, Reason.SERVING, serving_message, generation=generation, now=now
        )
    blocking_type, entry = blocker
    if entry is None:
        message = f"Condition {blocking_type} is not known yet for generation {generation}."
        return condition(
            ConditionType.READY, None, Reason.RECONCILING, message, generation=generation, now=now
        )
    cause = _root_cause(known) if blocking_type is ConditionType.AVAILABLE else entry
    return Condition(
        type=ConditionType.READY,
        status=entry.status,
        reason=cause.reason,
        message=cause.message,
        observed_generation=generation,
        last_transition_time=rfc3339(now),
    )


def _first_blocker(
    known: Mapping[ConditionType, Condition],
) -> tuple[ConditionType, Condition | None] | None:
    for needed in (ConditionType.ACCEPTED, ConditionType.PLANNED, ConditionType.AVAILABLE):
        entry = known.get(needed)
        if entry is None or not entry.is_true:
            return needed, entry
    return None


def _root_cause(known: Mapping[ConditionType, Condition]) -> Condition:
    """Say why Available is not True: what is wrong, else what goes on, else its own words."""
    available = known[ConditionType.AVAILABLE]
    if available.reason in (Reason.PLAN_ONLY, Reason.SCALED_TO_ZERO, Reason.DELETING):
        return available
    degraded = known.get(ConditionType.DEGRADED)
    if degraded is not None and degraded.is_true and degraded.reason not in _REMARKS:
        return degraded
    progressing = known.get(ConditionType.PROGRESSING)
    if progressing is not None and progressing.reason != Reason.COMPLETE:
        return progressing
    return available
