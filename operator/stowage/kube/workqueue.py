"""The queue of keys to reconcile, with the semantics of client-go's workqueue.

A key is queued at most once; a key that is added while it is being worked on is queued again when that work is done,
so two workers never hold the same key and no change is lost. Delays and retries are kept here too: nothing in the
operator sleeps inside a worker. Time comes from the running event loop, jitter from a function that is passed in.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from stowage.kube.token_bucket import TokenBucket

K = TypeVar("K", bound=Hashable)


class QueueObserver(Protocol):
    """Hooks for metrics."""

    def added(self) -> None:
        """A key went into the queue."""

    def taken(self, waited_seconds: float) -> None:
        """A worker took a key that had waited so long."""

    def finished(self, worked_seconds: float) -> None:
        """A worker is done with a key."""

    def retried(self) -> None:
        """A key was put back with a back-off."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delay of the n-th retry in a row: `base_seconds` × 2ⁿ, at most `maximum_seconds`, plus up to `jitter` of it."""

    base_seconds: float = 0.005
    maximum_seconds: float = 1000.0
    jitter: float = 0.1

    def delay(self, failures: int, random: float) -> float:
        """Seconds to wait after `failures` earlier ones in a row; `random` is in [0, 1)."""
        seconds = min(self.base_seconds * 2.0 ** min(failures, 60), self.maximum_seconds)
        return min(seconds * (1.0 + self.jitter * random), self.maximum_seconds)


class _Silent:
    def added(self) -> None: ...

    def taken(self, waited_seconds: float) -> None: ...

    def finished(self, worked_seconds: float) -> None: ...

    def retried(self) -> None: ...


class WorkQueue(Generic[K]):
    """Deduplicating, delaying, rate-limiting queue for one event loop; methods other than `get` never wait."""

    def __init__(
        self,
        random: Callable[[], float],
        *,
        backoff: Backoff | None = None,
        bucket: TokenBucket | None = None,
        observer: QueueObserver | None = None,
    ) -> None:
        self._random = random
        self._backoff = backoff or Backoff()
        self._bucket = bucket or TokenBucket(per_second=10.0, burst=100)
        self._observer: QueueObserver = observer or _Silent()
        self._ready: deque[K] = deque()
        self._dirty: dict[K, float] = {}
        self._processing: dict[K, float] = {}
        self._delayed: dict[K, tuple[float, asyncio.TimerHandle]] = {}
        self._failures: dict[K, int] = {}
        self._waiters: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        return len(self._ready)

    def add(self, key: K) -> None:
        """Queue the key now, unless it is queued already; while it is worked on, queue it for afterwards."""
        if key in self._dirty:
            return
        self._dirty[key] = asyncio.get_running_loop().time()
        self._observer.added()
        if key not in self._processing:
            self._push(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Queue the key in so many seconds; of several such wishes the earliest counts."""
        if seconds <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        waiting = self._delayed.get(key)
        if waiting is not None:
            if waiting[0] <= due:
                return
            waiting[1].cancel()
        self._delayed[key] = (due, loop.call_later(seconds, self._fire, key))

    def add_rate_limited(self, key: K, at_least: float = 0.0) -> float:
        """Queue the key after the longest of its own back-off, the common rate and `at_least`; gives the seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        now = asyncio.get_running_loop().time()
        backoff = self._backoff.delay(failures, self._random())
        seconds = max(backoff, self._bucket.reserve(now), at_least)
        self._observer.retried()
        self.add_after(key, seconds)
        return seconds

    def forget(self, key: K) -> None:
        """The key was handled: its next failure starts with the shortest delay."""
        self._failures.pop(key, None)

    def failures(self, key: K) -> int:
        """How often in a row the key was put back."""
        return self._failures.get(key, 0)

    async def get(self) -> K:
        """Wait for a key and hold it; every `get` needs its `done`."""
        while not self._ready:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                self._pass_on(waiter)
                raise
        key = self._ready.popleft()
        now = asyncio.get_running_loop().time()
        self._observer.taken(now - self._dirty.pop(key))
        self._processing[key] = now
        return key

    def done(self, key: K) -> None:
        """Give the key back; if it was added meanwhile, it is queued again now."""
        started = self._processing.pop(key)
        self._observer.finished(asyncio.get_running_loop().time() - started)
        if key in self._dirty:
            self._push(key)

    def running_seconds(self) -> tuple[float, ...]:
        """For how long each key that is held now has been worked on."""
        now = asyncio.get_running_loop().time()
        return tuple(now - started for started in self._processing.values())

    def close(self) -> None:
        """Drop all delays, so that nothing fires any more."""
        for _, handle in self._delayed.values():
            handle.cancel()
        self._delayed.clear()

    def _fire(self, key: K) -> None:
        del self._delayed[key]
        self.add(key)

    def _push(self, key: K) -> None:
        self._ready.append(key)
        self._wake_one()

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _pass_on(self, waiter: asyncio.Future[None]) -> None:
        """A cancelled worker that had been woken must not swallow the wake-up."""
        if waiter.cancelled() or not waiter.done():
            if waiter in self._waiters:
                self._waiters.remove(waiter)
        elif self._ready:
            self._wake_one()
