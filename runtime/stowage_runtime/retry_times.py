"""How long to wait for a Hub that may heal. Pure: time and chance enter as arguments.

The waits grow, so that a Hub under load is not kept there, and half of each is chance, so that the replicas of one
deployment do not come back together.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RetryTimes:
    """Seconds: of the first wait, of the longest one, and for which a Hub may stay unreachable."""

    first: float = 2.0
    longest: float = 60.0
    unreachable: float = 60.0

    def wait(self, attempt: int, asked_seconds: float | None, jitter: float) -> float:
        """Return how long to wait after failed attempt ``attempt``, counted from 0; ``jitter`` is from 0 to 1.

        Doubles up to the longest wait, half of it by chance, and never less than what the Hub asked for.
        """
        grown = min(self.longest, self.first * 2.0 ** min(attempt, 10))
        return max(grown * (0.5 + jitter / 2), asked_seconds or 0.0)
