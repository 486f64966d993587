"""The operator process: puts all parts together, runs them, and ends when one of them does.

Probes and metrics answer from the first moment. Then the Lease, then the CRD, then one full LIST and one look at the
agents, and only then watches and workers. The death of any part, or the loss of the Lease, ends the process with an
error, and the kubelet starts a clean one. SIGTERM ends it within seconds and gives the Lease back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import sys
import threading
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

import uvloop

from stowage.engine import reconcile
from stowage.feed.agent_http import AgentHttp
from stowage.feed.discovery import guard_own_kind, wait_for_own_kind
from stowage.feed.grants import Grants
from stowage.feed.hub import Hub, Tools
from stowage.feed.job_pods import JobPods
from stowage.feed.kopf_feed import KopfFeed
from stowage.feed.models.reader import ModelReader
from stowage.feed.models.resolutions import Resolutions
from stowage.feed.models.resolver import resolve
from stowage.feed.optional_watches import OptionalWatches
from stowage.feed.resync import Resync, ResyncTimes
from stowage.feed.scraper import Scraper, ScrapeTimes
from stowage.feed.snapshot import Knowledge
from stowage.feed.verdicts import Verdicts
from stowage.feed.watchdog import Watchdog
from stowage.kube.applier import Applier
from stowage.kube.client import KubeClient
from stowage.kube.connection import NoCredentials, load_connection
from stowage.kube.errors import ApiError
from stowage.kube.kinds import LEASE, WATCHED_KINDS, Kind
from stowage.kube.leader import Leadership, LeaseTimes
from stowage.kube.recorder import Recorder
from stowage.kube.store import Change, Store
from stowage.kube.workqueue import WorkQueue
from stowage.logs import set_up_logs
from stowage.probes import Health, ProbeServer, beat
from stowage.settings import BadSetting, Settings, identity, read_settings
from stowage.telemetry import Telemetry
from stowage.world import Key, ObjectRef

logger = logging.getLogger(__name__)

_FIRST_LIST_RETRY_SECONDS = 3.0


class TaskEnded(Exception):
    """A task that should run for ever has returned."""


class Operator:
    """One process's worth of parts; `run` is called once."""

    def __init__(self, settings: Settings, configuration: Any, telemetry: Telemetry, health: Health) -> None:
        self._settings = settings
        self._configuration = configuration
        self._telemetry = telemetry
        self._health = health
        self._client = KubeClient(configuration, observer=telemetry.requested)
        self._store = Store(frozenset(settings.namespaces))
        self._queue: WorkQueue[Key] = WorkQueue(random.random, observer=telemetry)
        self._http = AgentHttp(timeout_seconds=3.0)
        self._watchdog = Watchdog(settings.watch_patience)
        self._scraper = self._make_scraper()
        self._resolutions = self._make_resolutions()
        self._identity = identity()
        self._recorder = Recorder(self._client, self._identity, on_drop=telemetry.dropped_events.inc)
        self._hub = self._make_hub()
        self._optional_watches = OptionalWatches()
        self._resync = Resync(
            self._client,
            self._hub,
            self._watchdog,
            settings.namespaces,
            telemetry.ghosts.inc,
            self._optional_watches.want,
        )
        telemetry.set_workers(settings.workers)
        telemetry.set_host(configuration.host.partition("://")[2])
        telemetry.watch_queue(lambda: len(self._queue), self._queue.running_seconds)

    async def run(self, retake_signals: Any) -> None:
        """Lead and work until cancelled; raises whatever ended a part."""
        leadership = self._make_leadership()
        lease_name = f"{self._settings.lease_namespace}/{self._settings.lease_name}"
        self._telemetry.leading(lease_name, False)
        try:
            if leadership is not None:
                # A standby is ready: it can take over at any time.
                self._health.waiting_for = None
                await leadership.acquire()
                logger.info("%s holds the Lease %s.", self._identity, lease_name)
            self._telemetry.leading(lease_name, True)
            async with asyncio.TaskGroup() as group:
                if leadership is not None:
                    group.create_task(self._for_ever("lease", leadership.hold()))
                await self._serve(group, retake_signals)
        finally:
            self._telemetry.leading(lease_name, False)
            await self._close(leadership)

    async def _serve(self, group: asyncio.TaskGroup, retake_signals: Any) -> None:
        settings = self._settings
        self._health.waiting_for = "the CustomResourceDefinition of LLMDeployment"
        await wait_for_own_kind(self._client, settings.crd_interval)
        self._health.waiting_for = "the first LIST of the cluster"
        await self._first_list()
        self._health.waiting_for = "the first reports of the agents"
        await self._scraper.scrape_once()
        times = ResyncTimes(interval=settings.resync_interval)
        parts: dict[str, Coroutine[Any, Any, None]] = {
            "resync": self._resync.run(times),
            "scraper": self._scraper.run(),
            "recorder": self._recorder.run(),
            "CRD guard": guard_own_kind(self._client, settings.crd_interval),
            **{f"worker {number}": self._hub.work() for number in range(settings.workers)},
            "event feed": self._feed(WATCHED_KINDS).run(retake_signals),
            "optional watches": self._optional_watches.run(
                lambda kind: self._feed((kind,)).run(retake_signals), self._resync.rediscover
            ),
        }
        for name, part in parts.items():
            group.create_task(self._for_ever(name, part), name=name)
        self._health.waiting_for = None
        logger.info("At work: %s.", ", ".join(f"{n} {kind}" for kind, n in self._store.counts().items()))

    def _feed(self, kinds: Iterable[Kind]) -> KopfFeed:
        return KopfFeed(
            self._configuration,
            lambda kind, obj, deleted: self._hub.observe(kind, obj, deleted=deleted),
            self._settings.namespaces,
            kinds,
        )

    async def _first_list(self) -> None:
        while True:
            try:
                await self._resync.round()
            except ApiError as error:
                logger.warning("The cluster could not be listed, trying again: %s", error)
                await asyncio.sleep(_FIRST_LIST_RETRY_SECONDS)
            else:
                return

    async def _for_ever(self, name: str, part: Coroutine[Any, Any, None]) -> None:
        try:
            await part
        except asyncio.CancelledError:
            raise
        except BaseException:
            self._health.dead_task = name
            raise
        self._health.dead_task = name
        raise TaskEnded(f"{name} has ended by itself")

    async def _close(self, leadership: Leadership | None) -> None:
        self._hub.close()
        self._queue.close()
        await self._resolutions.close()
        if leadership is not None:
            await leadership.release()
        await self._http.close()
        await self._client.close()

    def _make_leadership(self) -> Leadership | None:
        settings = self._settings
        if not settings.leader_election:
            return None
        lease = ObjectRef(LEASE.api_version, LEASE.kind, settings.lease_namespace, settings.lease_name)
        times = LeaseTimes(settings.lease_duration, settings.renew_deadline, settings.retry_period)
        return Leadership(self._client, lease, self._identity, times)

    def _make_scraper(self) -> Scraper:
        times = ScrapeTimes(self._settings.scrape_interval, self._settings.start_scrape_interval)
        errors = self._telemetry.scrape_errors.inc
        return Scraper(self._http, self._store.all_server_pods, self._queue.add, times, errors)

    def _make_resolutions(self) -> Resolutions:
        def changed(change: Change) -> None:
            for key in change.keys:
                self._queue.add(key)

        reader = ModelReader(self._client, self._store, self._http, resolve, changed)
        return Resolutions(reader, self._queue.add_after)

    def _make_hub(self) -> Hub:
        knowledge = Knowledge(
            store=self._store,
            grants=Grants(self._store),
            verdicts=Verdicts(),
            resolutions=self._resolutions,
            reports=self._scraper.reports,
            options=self._settings.engine_options(),
            pools=self._settings.node_pools(),
        )
        applier = Applier(self._client, self._store)
        job_pods = JobPods(self._client, self._store)
        tools = Tools(reconcile, applier, self._recorder, self._queue, self._telemetry, job_pods)
        return Hub(knowledge, tools, self._watchdog, self._settings.fan_out_interval)


async def run_operator(settings: Settings) -> int:
    """Run until a signal (gives 0) or until a part dies (gives 1)."""
    health, telemetry = Health(), Telemetry()
    server = ProbeServer(health, telemetry, settings.host)
    ports = await server.start(settings.health_port, settings.metrics_port)
    logger.info("Probes on port %d, metrics on port %d.", *ports)
    stop = asyncio.Event()
    _take_signals(stop)
    heart = asyncio.create_task(beat(health, telemetry), name="heart beat")
    try:
        configuration = await load_connection(settings.kubeconfig or None)
        operator = Operator(settings, configuration, telemetry, health)
        life = asyncio.create_task(operator.run(lambda: _take_signals(stop)), name="operator")
        return await _until_end(life, stop, settings.stop_grace)
    finally:
        heart.cancel()
        await server.close()


async def _until_end(life: asyncio.Task[None], stop: asyncio.Event, grace_seconds: float) -> int:
    stopper = asyncio.create_task(stop.wait(), name="signal")
    await asyncio.wait({life, stopper}, return_when=asyncio.FIRST_COMPLETED)
    stopper.cancel()
    if not life.done():
        logger.info("Stopping.")
        life.cancel()
        await asyncio.wait({life}, timeout=grace_seconds)
        return 0
    if life.cancelled():
        return 0 if stop.is_set() else 1
    error = life.exception()
    for cause in _causes(error):
        logger.error("The operator ends: %s: %s", type(cause).__name__, cause, exc_info=_unexpected(cause))
    return 1


def _causes(error: BaseException | None) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [cause for inner in error.exceptions for cause in _causes(inner)]
    return [error] if error is not None else []


def _unexpected(error: BaseException) -> BaseException | None:
    """The traceback is of use only for what this program did not foresee."""
    return None if type(error).__module__.startswith("stowage.") else error


def _take_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, stop.set)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the operator; gives the exit code: 0 after a signal, 1 after a failure, 2 for a bad setting."""
    try:
        settings = read_settings(sys.argv[1:] if arguments is None else arguments, os.environ)
        settings.node_pools()
        settings.price_table()
        set_up_logs(settings.log_format, settings.log_level)
    except (BadSetting, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            code = runner.run(run_operator(settings))
            # A thread that asks the Hub cannot be cancelled, and closing the loop waits for it: not for ever.
            bound = threading.Timer(settings.stop_grace, os._exit, (code,))
            bound.daemon = True
            bound.start()
        bound.cancel()
        return code
    except (NoCredentials, OSError) as error:
        logger.error("The operator cannot start: %s", error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
