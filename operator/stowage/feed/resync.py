"""Lists everything from time to time: fills the cache at the start, prunes what watches failed to report as gone.

After every round each key is looked at again, optional kinds are rediscovered, and the watchdog learns what the
watches should have delivered.
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
from stowage.kube.errors import ApiError
from stowage.kube.kinds import CHILD_KINDS, LLM_DEPLOYMENT, NODE, POD, RESOURCE_QUOTA, ROOM_KINDS, Kind
from stowage.kube.store import Change
from stowage.render.names import MANAGED_BY_LABEL, MANAGER

logger = logging.getLogger(__name__)

OWN = Selector(label=f"{MANAGED_BY_LABEL}={MANAGER}")
LIVE_PODS = Selector(field="status.phase!=Succeeded,status.phase!=Failed")
SELECTORS = {POD: LIVE_PODS, **dict.fromkeys(CHILD_KINDS, OWN)}
"""What the watches and the LISTs are narrowed to; kinds that are not named are read whole."""

_FIRST = (NODE, POD, RESOURCE_QUOTA, *CHILD_KINDS, LLM_DEPLOYMENT)


@dataclass(frozen=True, slots=True)
class ResyncTimes:
    """Seconds between two rounds, between two checks of the watchdog, and before a failed round is repeated.

    `first` is short: what was deleted between the LIST at the start and the beginning of the watches is a ghost.
    """

    interval: float = 600.0
    first: float = 10.0
    check: float = 15.0
    retry: float = 10.0


class Resync:
    """One instance per process; `namespaces` are those that are served, empty for all."""

    def __init__(
        self,
        client: KubeClient,
        hub: Hub,
        watchdog: Watchdog,
        namespaces: tuple[str, ...],
        on_ghosts: Callable[[int], None],
    ) -> None:
        self._client = client
        self._hub = hub
        self._watchdog = watchdog
        self._namespaces: tuple[str | None, ...] = namespaces or (None,)
        self._on_ghosts = on_ghosts

    async def round(self) -> None:
        """List every kind once and look at every key; raises ApiError."""
        found = await installed_kinds(self._client)
        for kind in _FIRST:
            await self._list_everywhere(kind, SELECTORS.get(kind, Selector()), watched=True)
        self._hub.knowledge.optional_kinds = frozenset(
            [kind for kind in found if await self._try_optional(kind)]
        )
        self._hub.wake_all()

    async def _try_optional(self, kind: Kind) -> bool:
        """A kind that cannot be read counts as not installed: it is a convenience, and must not hold up the rest."""
        try:
            await self._list_everywhere(kind, OWN, watched=False)
        except ApiError as error:
            logger.warning("%s is installed but cannot be used yet: %s", kind.kind, error)
            return False
        return True

    async def run(self, times: ResyncTimes) -> None:
        """Repeat rounds until cancelled; raises WatchDied."""
        loop = asyncio.get_running_loop()
        due = loop.time() + min(times.first, times.interval)
        while True:
            await asyncio.sleep(min(times.check, max(0.0, due - loop.time())))
            self._watchdog.check(loop.time())
            if loop.time() < due:
                continue
            try:
                await self.round()
                due = loop.time() + times.interval
            except ApiError as error:
                logger.warning("Resync failed: %s", error)
                due = loop.time() + times.retry

    async def _list_everywhere(self, kind: Kind, selector: Selector, *, watched: bool) -> None:
        seen: set[str] = set()
        for namespace in (None,) if kind in ROOM_KINDS else self._namespaces:
            change, uids = await self._list(kind, namespace, selector)
            seen |= uids
            if watched:
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
