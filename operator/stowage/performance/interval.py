"""A number with its band: every figure of a forecast is one, so that no estimate is shown as if it were exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interval:
    """A central value and the band it is expected in; all three in the same unit, `low` ≤ `central` ≤ `high`."""

    central: float
    low: float
    high: float

    @classmethod
    def around(cls, central: float, share: float) -> Interval:
        """Give a band that is a factor 1 + `share` wide to either side."""
        return cls(central, central / (1 + share), central * (1 + share))

    def map(self, function: Callable[[float], float]) -> Interval:
        """Apply a monotonic function to all three values."""
        values = sorted((function(self.low), function(self.high)))
        return Interval(function(self.central), values[0], values[1])
