"""Decide whether and when a container that ended runs again. Pure.

The first restart is immediate, the following ones wait twice as long each time, and a container that ran for
long enough starts afresh, as with the kubelet; only the base is configurable, so that tests need not wait for
minutes.
"""

from __future__ import annotations

from dataclasses import dataclass


def restarts(policy: str, exit_code: int, *, is_init: bool) -> bool:
    """Whether `restartPolicy` wants the container again; an init container only after a failure."""
    if policy == "Never" or (is_init and exit_code == 0):
        return False
    return policy == "Always" or exit_code != 0


@dataclass(slots=True)
class BackOff:
    """The waits between runs of one container; the kubelet's own numbers are 10 s, 300 s and 600 s."""

    base_seconds: float = 1.0
    _next_seconds: float = 0.0

    def delay_seconds(self, ran_seconds: float) -> float:
        """Return how long to wait after a run that took `ran_seconds`, and remember it."""
        if ran_seconds >= 60 * self.base_seconds:
            self._next_seconds = 0.0
        delay = self._next_seconds
        longest = 30 * self.base_seconds
        self._next_seconds = min(longest, 2 * delay) if delay else self.base_seconds
        return delay
