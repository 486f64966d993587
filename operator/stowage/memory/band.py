"""A range of bytes in which a prediction lies, and how independent uncertainties add up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt

from stowage.memory.estimates import Estimate


@dataclass(frozen=True, slots=True)
class Band:
    """The lowest and highest value in bytes that a prediction allows for; both may be negative."""

    low: int
    high: int


def deviations(subtracted: Iterable[Estimate]) -> tuple[float, float]:
    """Give how far a remainder may lie below and above its center, in bytes.

    The terms that were subtracted err independently, so their deviations to either side add as a root of squares.
    """
    less = more = 0.0
    for term in subtracted:
        less += (term.high - term.value) ** 2
        more += (term.value - term.low) ** 2
    return sqrt(less), sqrt(more)


def remainder_band(center_bytes: int, subtracted: Iterable[Estimate]) -> Band:
    """Give the band of a remainder from which estimates were subtracted."""
    less, more = deviations(subtracted)
    return Band(int(center_bytes - less), int(center_bytes + more))
