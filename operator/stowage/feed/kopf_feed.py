"""The event feed: kopf's watches, and nothing else of kopf. The only file that imports it.

Each handler passes its event on and returns; kopf keeps no state about our objects and writes nothing to them. kopf
neither restarts a watch that has ended nor begins one whose kind was missing, so this module notices and says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import kopf

from stowage.feed.resync import SELECTORS
from stowage.feed.watchdog import WatchDied
from stowage.kube.client import Selector
from stowage.kube.kinds import ROOM_KINDS, WATCHED_KINDS, Kind

Observer = Callable[[Kind, Mapping[str, Any], bool], None]

_WATCH_TASK = "watcher for "
_SAID_BY_US = ("kopf._cogs.clients", "kopf._core.reactor.orchestration", "kopf._core.reactor.running")
_CHECK_SECONDS = 2.0
_START_SECONDS = 60.0
_WATCH_SECONDS = 300
_LOGIN_PERIOD = timedelta(minutes=10)


class KopfFeed:
    """Runs kopf in the current event loop; `observe(kind, object, deleted)` gets every event of the `kinds`.

    Every kind is watched in the whole cluster: kopf cannot watch pods everywhere and the rest in some `namespaces`,
    and pods of all namespaces share the nodes. What is not about the served ones is left out here.
    """

    def __init__(
        self,
        configuration: Any,
        observe: Observer,
        namespaces: tuple[str, ...],
        kinds: Iterable[Kind] = WATCHED_KINDS,
    ) -> None:
        self._configuration = configuration
        self._observe = observe
        self._namespaces = namespaces
        self._kinds = tuple(kinds)
        # kopf tells of every failed and repeated request, and of every watch that ends; we do that.
        logging.getLogger("kopf").setLevel(logging.WARNING)
        for name in _SAID_BY_US:
            logging.getLogger(name).setLevel(logging.CRITICAL)

    async def run(self, on_spawned: Callable[[], None] = lambda: None) -> None:
        """Watch until cancelled; raises WatchDied when a watch has ended or does not begin.

        kopf takes over SIGTERM and SIGINT while it starts; `on_spawned` is called when they may be taken back.
        """
        tasks = set(
            await kopf.spawn_tasks(
                registry=self._registry(),
                settings=self._settings(),
                clusterwide=True,
                standalone=True,
            )
        )
        on_spawned()
        # kopf's own way to wait for these tasks ends by cancelling every task of the process that is younger.
        guard = asyncio.create_task(self._guard(), name="guard of the watches")
        try:
            ended, _ = await asyncio.wait({guard, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            if guard.done():
                guard.result()
            raise WatchDied(f"The event feed has ended by itself: {_cause(ended.pop())}.")
        finally:
            for task in (guard, *tasks):
                task.cancel()
            await asyncio.gather(guard, *tasks, return_exceptions=True)

    async def _guard(self) -> None:
        """Watch the tasks that kopf runs its watches in: one for each kind."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _START_SECONDS
        watches: dict[str, asyncio.Task[Any]] = {}
        expected = {_task_name(kind) for kind in self._kinds}
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            watches |= {task.get_name(): task for task in asyncio.all_tasks() if task.get_name() in expected}
            ended = [task for task in watches.values() if task.done()]
            if ended:
                raise WatchDied(f"The {ended[0].get_name()} has ended: {_cause(ended[0])}.")
            missing = sorted(expected - watches.keys())
            if missing and loop.time() > deadline:
                raise WatchDied(f"The {missing[0]} has not begun within {_START_SECONDS:g} s.")

    def _settings(self) -> kopf.OperatorSettings:
        settings = kopf.OperatorSettings()
        settings.posting.enabled = False
        settings.scanning.disabled = True
        settings.networking.request_timeout = 30
        settings.networking.connect_timeout = 5
        settings.watching.server_timeout = _WATCH_SECONDS
        settings.watching.client_timeout = _WATCH_SECONDS + 30
        settings.watching.chunk_size = 500
        settings.execution.max_workers = 2
        settings.process.ultimate_exiting_timeout = None
        # Our handlers only pass events on: there is nothing to finish.
        settings.queueing.exit_timeout = 0.1
        for kind in self._kinds:
            selector = SELECTORS.get(kind, Selector())
            if selector.label:
                settings.watching.label_selectors[kind.group, kind.version, kind.plural] = selector.label
            if selector.field:
                settings.watching.field_selectors[kind.group, kind.version, kind.plural] = selector.field
        return settings

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(self._login)
        for kind in self._kinds:
            kopf.on.event(kind.group, kind.version, kind.plural, registry=registry, id=kind.plural)(
                self._handler(kind)
            )
        return registry

    def _handler(self, kind: Kind) -> Callable[..., Any]:
        async def handle(event: Mapping[str, Any], **_: Any) -> None:
            obj = {"apiVersion": kind.api_version, "kind": kind.kind, **event["object"]}
            if kind in ROOM_KINDS or self._serves(obj["metadata"].get("namespace", "")):
                self._observe(kind, obj, event["type"] == "DELETED")

        return handle

    def _serves(self, namespace: str) -> bool:
        return not self._namespaces or namespace in self._namespaces

    async def _login(self, **_: Any) -> kopf.ConnectionInfo:
        """The same connection as our own client's."""
        configuration = self._configuration
        settings: Mapping[str, Any] = await configuration.auth_settings()
        authorization = "".join(str(setting["value"]) for setting in settings.values())
        scheme, _space, token = authorization.partition(" ")
        return kopf.ConnectionInfo(
            server=configuration.host,
            ca_path=configuration.ssl_ca_cert,
            insecure=not configuration.verify_ssl,
            scheme=scheme.capitalize() or None,
            token=token or None,
            certificate_path=configuration.cert_file,
            private_key_path=configuration.key_file,
            # Service account tokens are rotated: read them again from time to time.
            expiration=datetime.now(UTC) + _LOGIN_PERIOD if token else None,
        )


def _task_name(kind: Kind) -> str:
    """What kopf calls the task that watches a kind in the whole cluster."""
    group = f".{kind.group}" if kind.group else ""
    return f"{_WATCH_TASK}{kind.plural}.{kind.version}{group}@None"


def _cause(task: asyncio.Task[Any]) -> str:
    if task.cancelled():
        return "cancelled"
    error = task.exception()
    return repr(error) if error is not None else "no error"
