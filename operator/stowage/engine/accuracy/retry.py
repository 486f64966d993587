"""When a check that could not measure is tried again: a few times, and prompts as often as a person mends them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from stowage.api.conditions import Reason
from stowage.engine.accuracy.record import CheckResult

# Prompts are read again often: a person has just been told what is wrong with them, and no engine was started.
_PROMPTS_RETRY: Final = timedelta(minutes=2)
_RETRIES: Final = (timedelta(minutes=5), timedelta(minutes=30))


def is_due(result: CheckResult, now: datetime) -> bool:
    """Whether it is time to try again."""
    due = due_at(result)
    return due is not None and now >= due


def due_at(result: CheckResult) -> datetime | None:
    """When a check that could not measure is tried again; None after the last try."""
    finished = datetime.fromisoformat(result.finished_at.replace("Z", "+00:00"))
    if result.failure is not None and result.failure[0] == Reason.INVALID_PROMPTS:
        return finished + _PROMPTS_RETRY
    if result.attempts > len(_RETRIES):
        return None
    return finished + _RETRIES[max(0, result.attempts - 1)]
