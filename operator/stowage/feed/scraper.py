"""Reads the reports of all agents: often while they start, every few seconds once they serve.

It keeps the newest report per pod and says when one is news. A pod that does not answer keeps its last report for a
while; once that is too old it is dropped and the key is told, so that no status shows old figures as if they were of
now. It decides nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from stowage.feed.agent_http import AgentHttp, AgentUnavailable
from stowage.feed.news import is_news
from stowage.world import Key, PodReport
from stowage_runtime.contract import ContractError, RuntimeReport

logger = logging.getLogger(__name__)

_OLD_INTERVALS = 3
_TICK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class ScrapeTimes:
    """Seconds between two reports of a pod that serves, and of one that does not yet."""

    serving: float = 15.0
    starting: float = 2.0

    @property
    def too_old(self) -> float:
        """Age in seconds at which a report says nothing about the pod any more."""
        return _OLD_INTERVALS * max(self.serving, self.starting)


@dataclass(slots=True)
class _Target:
    key: Key
    name: str
    uid: str
    pod_ip: str
    due: float = 0.0
    newest: PodReport | None = None
    answered: float = 0.0
    told: RuntimeReport | None = None


class Scraper:
    """`pods` gives all server pods by key; `wake` is called with a key that has news, `on_error` per failed scrape."""

    def __init__(
        self,
        http: AgentHttp,
        pods: Callable[[], Iterable[tuple[Key, Mapping[str, Any]]]],
        wake: Callable[[Key], None],
        times: ScrapeTimes,
        on_error: Callable[[], None] = lambda: None,
    ) -> None:
        self._http = http
        self._pods = pods
        self._wake = wake
        self._times = times
        self._on_error = on_error
        self._targets: dict[str, _Target] = {}

    def reports(self, key: Key) -> tuple[PodReport, ...]:
        """The newest report of every pod of a key, by pod name; none that is too old."""
        found = [target.newest for target in self._targets.values() if target.key == key and target.newest]
        return tuple(sorted(found, key=lambda report: report.pod))

    async def run(self) -> None:
        """Scrape until cancelled."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            busy: dict[str, asyncio.Task[None]] = {}
            while True:
                self._update_targets()
                self._drop_old(loop.time())
                busy = {uid: task for uid, task in busy.items() if not task.done()}
                for uid, target in self._targets.items():
                    if target.due <= loop.time() and uid not in busy:
                        busy[uid] = group.create_task(self._scrape(target), name=f"scrape {target.name}")
                await asyncio.sleep(_TICK_SECONDS)

    async def scrape_once(self, within_seconds: float = 5.0) -> None:
        """Ask every pod once, all at the same time; those that take longer are asked again by `run`.

        Before the first decisions after a start: without it they would be taken as if no pod had ever reported.
        """
        self._update_targets()
        tasks = [asyncio.create_task(self._scrape(target)) for target in self._targets.values()]
        try:
            async with asyncio.timeout(within_seconds):
                await asyncio.gather(*tasks)
        except TimeoutError:
            logger.info("Some of %d agents took longer than %g s.", len(tasks), within_seconds)

    def _update_targets(self) -> None:
        seen: set[str] = set()
        for key, pod in self._pods():
            uid, pod_ip = pod["metadata"]["uid"], (pod.get("status") or {}).get("podIP")
            if not pod_ip or not _is_running(pod):
                continue
            seen.add(uid)
            target = self._targets.get(uid)
            if target is None or target.pod_ip != pod_ip:
                self._targets[uid] = _Target(key, pod["metadata"]["name"], uid, pod_ip)
        for uid in [uid for uid in self._targets if uid not in seen]:
            del self._targets[uid]

    async def _scrape(self, target: _Target) -> None:
        try:
            report = RuntimeReport.from_json(await self._http.get(target.pod_ip, "/report"))
        except (AgentUnavailable, ContractError):
            self._failed(target)
            return
        back = target.newest is None
        target.answered = asyncio.get_running_loop().time()
        target.newest = PodReport(target.name, target.uid, datetime.now(UTC), report)
        serving = report.phase == "Serving"
        self._schedule(target, self._times.serving if serving else self._times.starting)
        if back or is_news(report, target.told):
            target.told = report
            self._wake(target.key)

    def _failed(self, target: _Target) -> None:
        self._schedule(target, self._times.starting)
        if target.told is not None:
            # While a container starts nobody listens; only an agent that has answered before can fail.
            self._on_error()

    def _drop_old(self, now: float) -> None:
        for target in self._targets.values():
            if target.newest is not None and now - target.answered > self._times.too_old:
                target.newest = None
                self._wake(target.key)

    def _schedule(self, target: _Target, seconds: float) -> None:
        with contextlib.suppress(KeyError):
            self._targets[target.uid].due = asyncio.get_running_loop().time() + seconds


def _is_running(pod: Mapping[str, Any]) -> bool:
    """Whether the engine's container runs: before that nobody answers, and a dead pod's address may be reused."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return any("running" in (status.get("state") or {}) for status in statuses)
