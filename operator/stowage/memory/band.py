"""A range of bytes in which a prediction lies, and how independent uncertainties add up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import hypot

from stowage.memory.estimates import Estimate


@dataclass(frozen=True, slots=True)
class Band:
    """The lowest and highest value in bytes that a prediction allows for; both may be negative."""

    low: int
    high: int


def remainder_band(center_bytes: int, subtracted: Iterable[Estimate]) -> Band:
    """Give the band of a remainder from which estimates were subtracted.

    The terms err independently, so their deviations to either side add as a root of squares.
    """
    terms = tuple(subtracted)
    less = hypot(*(term.high - term.value for term in terms))
    more = hypot(*(term.value - term.low for term in terms))
    return Band(int(center_bytes - less), int(center_bytes + more))
