"""Lists everything from time to time: fills the cache at the start, prunes what watches failed to report as gone.

After every round each key is looked at again and its plan is reviewed, and the watchdog learns what the watches should
have delivered. Optional kinds are rediscovered between the rounds too: to ask for them is cheap.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stowage.feed.discovery import installed_kinds
from stowage.feed.hub import Hub
from stowage.feed.watchdog import Watchdog
from stowage.kube.client import KubeClient, Selector
from stowage.kube.errors import ApiError, Forbidden, NotFound
from stowage.kube.kinds import (
    CHILD_KINDS,
    LLM_DEPLOYMENT,
    NODE,
    OPTIONAL_KINDS,
    POD,
    RESOURCE_QUOTA,
    ROOM_KINDS,
    Kind,
)
from stowage.kube.store import Change
from stowage.render.names import MANAGED_BY_LABEL, MANAGER

logger = logging.getLogger(__name__)

OWN = Selector(label=f"{MANAGED_BY_LABEL}={MANAGER}")
LIVE_PODS = Selector(field="status.phase!=Succeeded,status.phase!=Failed")
SELECTORS = {POD: LIVE_PODS, **dict.fromkeys((*CHILD_KINDS, *OPTIONAL_KINDS), OWN)}
"""What the watches and the LISTs are narrowed to; kinds that are not named are read whole."""

_FIRST = (NODE, POD, RESOURCE_QUOTA, *CHILD_KINDS, LLM_DEPLOYMENT)


@dataclass(frozen=True, slots=True)
class ResyncTimes:
    """Seconds between two rounds, between two checks in between, and before a failed round is repeated.

    `first` is short: what was deleted between the LIST at the start and the beginning of the watches is a ghost.
    """

    interval: float = 600.0
    first: float = 10.0
    check: float = 15.0
    retry: float = 10.0


class Resync:
    """One instance per process; `namespaces` are those that are served, empty for all.

    `on_kinds` is told which optional kinds can be used.
    """

    def __init__(
        self,
        client: KubeClient,
        hub: Hub,
        watchdog: Watchdog,
        namespaces: tuple[str, ...],
        on_ghosts: Callable[[int], None],
        on_kinds: Callable[[frozenset[Kind]], None] = lambda _: None,
    ) -> None:
        self._client = client
        self._hub = hub
        self._watchdog = watchdog
        self._namespaces: tuple[str | None, ...] = namespaces or (None,)
        self._on_ghosts = on_ghosts
        self._on_kinds = on_kinds
        self._unusable: set[Kind] = set()
        self._discovery = asyncio.Lock()

    async def round(self) -> None:
        """List every kind once and look at every key; raises ApiError."""
        for kind in _FIRST:
            await self._list_everywhere(kind)
        async with self._discovery:
            installed = await installed_kinds(self._client)
            self._use(frozenset([kind for kind in installed if await self._try_optional(kind)]))
        self._hub.review_all()

    async def rediscover(self) -> None:
        """Begin to use the optional kinds that have appeared, and forget those that are gone; raises ApiError."""
        async with self._discovery:
            known = self._hub.knowledge.optional_kinds
            installed = await installed_kinds(self._client)
            fresh = [kind for kind in installed - known if await self._try_optional(kind)]
            changed = self._use(known & installed | frozenset(fresh))
        if changed:
            self._hub.wake_all()

    def _use(self, kinds: frozenset[Kind]) -> bool:
        """Make these the optional kinds; gives whether they were others before."""
        known = self._hub.knowledge.optional_kinds
        for kind in known - kinds:
            self._watchdog.keep_only(kind, ())
            self._hub.react(self._hub.knowledge.store.forget(kind))
        self._hub.knowledge.optional_kinds = kinds
        self._on_kinds(kinds)
        for kind in known ^ kinds:
            logger.info("%s is %s.", kind.kind, "used from now on" if kind in kinds else "not used any more")
        return known != kinds

    async def _try_optional(self, kind: Kind) -> bool:
        """A kind that cannot be read counts as not installed: it is a convenience, and must not hold up the rest.

        Where it could be read before, only a clear answer of the server counts, not a server that is busy.
        """
        try:
            await self._list_everywhere(kind)
        except ApiError as error:
            if kind not in self._unusable:
                logger.warning("%s is installed but cannot be used yet: %s", kind.kind, error)
            used = kind in self._hub.knowledge.optional_kinds and not isinstance(error, (NotFound, Forbidden))
            if not used:
                self._unusable.add(kind)
            return used
        self._unusable.discard(kind)
        return True

    async def run(self, times: ResyncTimes) -> None:
        """Repeat rounds until cancelled; raises WatchDied."""
        loop = asyncio.get_running_loop()
        due = loop.time() + min(times.first, times.interval)
        while True:
            await asyncio.sleep(min(times.check, max(0.0, due - loop.time())))
            self._watchdog.check(loop.time())
            try:
                if loop.time() < due:
                    await self.rediscover()
                else:
                    await self.round()
                    due = loop.time() + times.interval
            except ApiError as error:
                logger.warning("Resync failed: %s", error)
                due = max(due, loop.time() + times.retry)

    async def _list_everywhere(self, kind: Kind) -> None:
        seen: set[str] = set()
        for namespace in (None,) if kind in ROOM_KINDS else self._namespaces:
            change, uids = await self._list(kind, namespace, SELECTORS.get(kind, Selector()))
            seen |= uids
            self._watchdog.listed(kind, change.updates, asyncio.get_running_loop().time())
        self._watchdog.keep_only(kind, seen)

    async def _list(self, kind: Kind, namespace: str | None, selector: Selector) -> tuple[Change, set[str]]:
        items: list[dict[str, Any]] = []
        version = ""
        async for page in self._client.list_pages(kind, namespace, selector):
            items += page.items
            version = page.resource_version
        change = self._hub.knowledge.store.replace(kind, items, version, namespace)
        if change.ghosts:
            logger.warning("%d %s objects were gone without the watch saying so.", change.ghosts, kind.kind)
            self._on_ghosts(change.ghosts)
        self._hub.react(change)
        return change, {item["metadata"]["uid"] for item in items}
