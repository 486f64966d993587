"""Sends changes of the cluster's room to the LLMDeployments they may matter to, a few times a minute at most.

Thousands of pods may come and go in a second; each such change concerns every LLMDeployment that waits for room. So
changes are collected, and the keys go into the queue at most once per interval.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)


class FanOut(Generic[S]):
    """Collects scopes; `fire` is called with all of them at once, at most every `interval_seconds`."""

    def __init__(self, fire: Callable[[Iterable[S]], None], interval_seconds: float) -> None:
        self._fire = fire
        self._interval_seconds = interval_seconds
        self._scopes: set[S] = set()
        self._last: float | None = None
        self._handle: asyncio.TimerHandle | None = None

    def trigger(self, scope: S) -> None:
        """Something changed within this scope."""
        self._scopes.add(scope)
        if self._handle is not None:
            return
        loop = asyncio.get_running_loop()
        wait = 0.0 if self._last is None else self._last + self._interval_seconds - loop.time()
        self._handle = loop.call_later(max(0.0, wait), self._run)

    def close(self) -> None:
        """Send nothing more."""
        if self._handle is not None:
            self._handle.cancel()

    def _run(self) -> None:
        self._handle = None
        self._last = asyncio.get_running_loop().time()
        scopes, self._scopes = self._scopes, set()
        self._fire(scopes)
