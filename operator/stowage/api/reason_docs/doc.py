"""The documentation of one reason."""

from __future__ import annotations

from dataclasses import dataclass

from stowage.api.reasons import ConditionType


@dataclass(frozen=True, slots=True)
class ReasonDoc:
    """What a reason means, what to do about it, and the conditions that carry it; none where only an event does."""

    meaning: str
    hint: str
    conditions: tuple[ConditionType, ...]
