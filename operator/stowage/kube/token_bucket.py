"""A token bucket that hands out reservations, so that retries of all keys together stay within a rate.

Time enters as an argument; the bucket never sleeps.
"""

from __future__ import annotations


class TokenBucket:
    """At most `burst` at once and `per_second` in the long run."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._per_second = per_second
        self._burst = float(burst)
        self._tokens = float(burst)
        self._updated: float | None = None

    def reserve(self, now: float) -> float:
        """Take one token and give the seconds to wait until it is really there; 0 when it is already."""
        if self._updated is not None:
            self._tokens = min(self._burst, self._tokens + (now - self._updated) * self._per_second)
        self._updated = now
        self._tokens -= 1.0
        return max(0.0, -self._tokens / self._per_second)
