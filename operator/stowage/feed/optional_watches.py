"""A watch for each optional kind that the server has, begun and ended as such kinds come and go.

Each is a small event feed of its own, so that the end of one, which is what the removal of its kind looks like, leaves
all others alone. It never decides which kinds there are: it is told, and it asks for that to be found out again when
a watch ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

from stowage.feed.watchdog import WatchDied
from stowage.kube.errors import ApiError
from stowage.kube.kinds import Kind

logger = logging.getLogger(__name__)

_AGAIN_SECONDS = 5.0


class OptionalWatches:
    """`watch` watches one kind until it is cancelled, or raises WatchDied; `rediscover` leads to `want`."""

    def __init__(self, again_seconds: float = _AGAIN_SECONDS) -> None:
        self._again_seconds = again_seconds
        self._wanted: frozenset[Kind] = frozenset()
        self._changed = asyncio.Event()

    def want(self, kinds: frozenset[Kind]) -> None:
        """These kinds, and no others, are to be watched from now on."""
        self._wanted = kinds
        self._changed.set()

    async def run(
        self,
        watch: Callable[[Kind], Coroutine[Any, Any, None]],
        rediscover: Callable[[], Awaitable[None]],
    ) -> None:
        """Keep the watches as they are wanted until cancelled; raises what a watch raises besides WatchDied."""
        watches: dict[Kind, asyncio.Task[None]] = {}
        try:
            while True:
                self._changed.clear()
                for kind in self._wanted - watches.keys():
                    watches[kind] = asyncio.create_task(
                        self._keep(kind, watch, rediscover), name=f"watch of {kind}"
                    )
                await _end(watches.pop(kind) for kind in watches.keys() - self._wanted)
                await self._news(watches.values())
        finally:
            await _end(watches.values())

    async def _news(self, watches: Iterable[asyncio.Task[None]]) -> None:
        """Return when other kinds are wanted; raises what has ended a watch."""
        changed = asyncio.create_task(self._changed.wait(), name="change of optional kinds")
        try:
            done, _ = await asyncio.wait({changed, *watches}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
        for task in done - {changed}:
            task.result()

    async def _keep(
        self,
        kind: Kind,
        watch: Callable[[Kind], Coroutine[Any, Any, None]],
        rediscover: Callable[[], Awaitable[None]],
    ) -> None:
        """Watch again whenever the watch has died; where the kind is gone, `rediscover` gets this cancelled."""
        while True:
            try:
                await watch(kind)
            except WatchDied as died:
                logger.info("%s is looked for again: %s", kind.kind, died)
            try:
                await rediscover()
            except ApiError as error:
                logger.warning("The API server could not be asked for its kinds: %s", error)
            await asyncio.sleep(self._again_seconds)


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)
