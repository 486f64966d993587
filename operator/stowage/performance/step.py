"""How long one engine step takes: the entrance for whoever asks about a single step."""

from __future__ import annotations

from stowage.performance.pace import pace_of
from stowage.performance.serving import Serving
from stowage.performance.step_parts import StepBatch, StepTime

__all__ = ["StepBatch", "StepTime", "step_time"]


def step_time(serving: Serving, batch: StepBatch) -> StepTime:
    """Give how long one step takes on this replica; `batch` is that of one data-parallel rank."""
    return pace_of(serving).step(batch)
