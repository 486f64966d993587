"""Nodes whose pods are local processes: the part that ties API, nodes, pods, logs and Services together.

Runs in the process and network namespace that it is started in. However it ends, no process of a pod
survives: the kernel kills containers with this process, and what an earlier one may have left is looked up
and killed at the start.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from e2e.localnode.addresses import AddressPool, default_pod_network, has_pod_network, has_service_network
from e2e.localnode.api_client import ApiClient
from e2e.localnode.context import NodeContext
from e2e.localnode.images import ImageCatalog
from e2e.localnode.inventory import NodeManifest
from e2e.localnode.isolation import find_isolation
from e2e.localnode.log_server import LogServer
from e2e.localnode.logs import ContainerLogs
from e2e.localnode.mirror import Mirror
from e2e.localnode.node_agent import NodeAgent
from e2e.localnode.pod_runner import PodRunner
from e2e.localnode.processes import reap_recorded
from e2e.localnode.service_proxy import ServiceProxy
from e2e.localnode.volumes import memory_token, remove_memory

Json = dict[str, Any]
_LOG = logging.getLogger(__name__)
_HOST_ADDRESS = "127.0.0.1"
_API_SERVICE = ("10.96.0.1", 443)


@dataclass(frozen=True, slots=True)
class LocalNodeOptions:
    """How to run; `back_off_seconds` is the wait before the second restart (a kubelet's is 10 s)."""

    kubeconfig: Path
    state_dir: Path
    back_off_seconds: float = 1.0
    pod_network: str = ""
    remove_nodes: bool = False


class LocalNode:
    """Any number of nodes, played by this process; an asynchronous context manager."""

    def __init__(
        self, options: LocalNodeOptions, nodes: Sequence[NodeManifest], images: ImageCatalog
    ) -> None:
        self._options = options
        self._manifests = {node.name: node for node in nodes}
        self._images = images
        self._api = ApiClient(options.kubeconfig)
        self._services = Mirror(self._api, "/api/v1/services", self._service_changed)
        self._slices = Mirror(self._api, "/apis/discovery.k8s.io/v1/endpointslices", self._service_changed)
        self._pods = Mirror(self._api, "/api/v1/pods", self._pod_changed, "fieldSelector=spec.nodeName!=")
        self._proxy = ServiceProxy()
        self._routes_changed = asyncio.Event()
        self._runners: dict[str, tuple[PodRunner, asyncio.Task[None]]] = {}
        self._agents: list[NodeAgent] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._stack = contextlib.AsyncExitStack()
        self._context: NodeContext | None = None
        self._failed = asyncio.Event()
        self.proxies_services = has_service_network()

    async def __aenter__(self) -> LocalNode:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._api)
            http = await stack.enter_async_context(
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True))
            )
            self._context = await self._make_context(http)
            logs = LogServer(_HOST_ADDRESS, self._api.authority, self._find_logs)
            await logs.start()
            stack.push_async_callback(logs.stop)
            stack.push_async_callback(self._end)
            await self._register(logs.port)
            self._start(self._services.run(), self._slices.run(), self._pods.run())
            if self.proxies_services:
                self._start(self._proxy_services())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def describe(self) -> str:
        """Say in one line what is played and what this machine allows."""
        isolation = self._context.isolation.describe() if self._context else "not started"
        network = (
            "an address per pod"
            if has_pod_network()
            else "loopback addresses (no Services, no EndpointSlices)"
        )
        proxy = "Services answer" if self.proxies_services else "Services are not proxied"
        return f"{len(self._manifests)} nodes; {isolation}; {network}; {proxy}"

    async def wait_failed(self) -> None:
        """Return when a part of the node has ended that must not; the log says why."""
        await self._failed.wait()

    async def _make_context(self, http: aiohttp.ClientSession) -> NodeContext:
        state_dir = self._options.state_dir.resolve()
        for name in ("root", "processes", "pods"):
            (state_dir / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        left = await asyncio.to_thread(reap_recorded, state_dir / "processes")
        if left:
            _LOG.warning("killed %d processes that an earlier local node left", left)
        remove_memory(abandoned_only=True)
        for directory in (state_dir / "pods").iterdir():
            shutil.rmtree(directory, ignore_errors=True)
        url = urlsplit(self._api.server)
        outside = (url.hostname or _HOST_ADDRESS, url.port or 443)
        return NodeContext(
            api=self._api,
            http=http,
            images=self._images,
            addresses=AddressPool(self._options.pod_network or default_pod_network()),
            isolation=await find_isolation(state_dir / "root"),
            state_dir=state_dir,
            token=memory_token(),
            api_address=_API_SERVICE if self.proxies_services else outside,
            services=self._services.objects.values,
            back_off_seconds=self._options.back_off_seconds,
        )

    async def _register(self, port: int) -> None:
        self._agents = [NodeAgent(self._api, node, _HOST_ADDRESS, port) for node in self._manifests.values()]
        await asyncio.gather(*(agent.register() for agent in self._agents))
        self._start(*(agent.keep_alive() for agent in self._agents))

    def _start(self, *work: Any) -> None:
        for entry in work:
            task = asyncio.create_task(entry, name=getattr(entry, "__qualname__", "work"))
            task.add_done_callback(self._complain)
            self._tasks.append(task)

    def _complain(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            _LOG.error("%s: an error of the local node itself", task.get_name(), exc_info=task.exception())
            self._failed.set()

    async def _end(self) -> None:
        running = [task for _, task in self._runners.values()]
        for task in (*self._tasks, *running):
            task.cancel()
        await asyncio.gather(*self._tasks, *running, return_exceptions=True)
        await self._proxy.stop()
        remove_memory(abandoned_only=False)
        if self._options.remove_nodes:
            await asyncio.gather(*(agent.remove() for agent in self._agents))

    async def _pod_changed(self, pod: Json, gone: bool) -> None:
        node = self._manifests.get(pod["spec"].get("nodeName", ""))
        if node is None or self._context is None:
            return
        uid = pod["metadata"]["uid"]
        if uid in self._runners and gone:
            self._runners[uid][0].vanish()
        elif uid in self._runners:
            self._runners[uid][0].observe(pod)
        elif not gone:
            runner = PodRunner(self._context, node, pod)
            task = asyncio.create_task(runner.run(), name=f"pod {pod['metadata']['name']}")
            self._runners[uid] = (runner, task)
            task.add_done_callback(lambda done: self._forget(uid, done))

    def _forget(self, uid: str, task: asyncio.Task[None]) -> None:
        self._runners.pop(uid, None)
        if not task.cancelled() and task.exception() is not None:
            _LOG.error("%s: an error of the local node itself", task.get_name(), exc_info=task.exception())

    async def _service_changed(self, _item: Json, _gone: bool) -> None:
        self._routes_changed.set()

    async def _proxy_services(self) -> None:
        while True:
            await self._routes_changed.wait()
            self._routes_changed.clear()
            await self._proxy.update(self._services.objects.values(), self._slices.objects.values())

    def _find_logs(
        self, namespace: str, pod: str, container: str
    ) -> tuple[ContainerLogs, Callable[[], tuple[int, bool]]]:
        wanted = (namespace, pod)
        names = {uid: _full_name(item) for uid, item in self._pods.objects.items() if uid in self._runners}
        uid = next((uid for uid, name in names.items() if name == wanted), "")
        look = functools.partial(self._runners[uid][0].logs, container)
        return look()[0], lambda: look()[1:]


def _full_name(item: Json) -> tuple[str, str]:
    return item["metadata"]["namespace"], item["metadata"]["name"]
