"""Make ClusterIPs answer inside the cluster's network namespace: one small TCP proxy per Service port.

Endpoints come from EndpointSlices and are taken in turn; a Service without a usable endpoint refuses
connections, as with kube-proxy. It needs the AnyIP route for 10.96.0.0/16 and must not be started without.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Json = Mapping[str, Any]
Address = tuple[str, int]
_LOG = logging.getLogger(__name__)
_CHUNK_BYTES = 1 << 16
_CONNECT_SECONDS = 5.0


def service_routes(services: Iterable[Json], slices: Iterable[Json]) -> dict[Address, tuple[Address, ...]]:
    """Return for every (ClusterIP, port) the endpoints that may be used now. Pure.

    Ready endpoints are used; where there is none, those that still serve while they terminate.
    """
    by_service: dict[tuple[str, str], list[Json]] = {}
    for entry in slices:
        metadata = entry["metadata"]
        name = (metadata.get("labels") or {}).get("kubernetes.io/service-name", "")
        by_service.setdefault((metadata["namespace"], name), []).append(entry)
    routes: dict[Address, tuple[Address, ...]] = {}
    for service in services:
        metadata, spec = service["metadata"], service["spec"]
        address = spec.get("clusterIP")
        if (
            not address
            or address == "None"
            or (metadata["namespace"], metadata["name"]) == ("default", "kubernetes")
        ):
            continue
        own = by_service.get((metadata["namespace"], metadata["name"]), [])
        for port in spec.get("ports") or []:
            if port.get("protocol", "TCP") == "TCP" and (ends := _endpoints(own, port.get("name") or "")):
                routes[address, port["port"]] = ends
    return routes


def _endpoints(slices: Iterable[Json], port_name: str) -> tuple[Address, ...]:
    ready: set[Address] = set()
    draining: set[Address] = set()
    for entry in slices:
        numbers = [port["port"] for port in entry.get("ports") or [] if (port.get("name") or "") == port_name]
        for endpoint in entry.get("endpoints") or []:
            conditions = endpoint.get("conditions") or {}
            found = {(address, number) for address in endpoint["addresses"] for number in numbers}
            if conditions.get("ready", True):
                ready |= found
            elif conditions.get("serving") and conditions.get("terminating"):
                draining |= found
    return tuple(sorted(ready or draining))


@dataclass(slots=True)
class _Listener:
    server: asyncio.Server
    endpoints: tuple[Address, ...]
    turn: itertools.count[int] = field(default_factory=itertools.count)


class ServiceProxy:
    """The proxies of all Services; `update` makes them what the Services and EndpointSlices say."""

    def __init__(self) -> None:
        self._listeners: dict[Address, _Listener] = {}
        self._connections: set[asyncio.Task[None]] = set()

    async def update(self, services: Iterable[Json], slices: Iterable[Json]) -> None:
        """Open and close listeners, and hand the others their new endpoints."""
        routes = service_routes(services, slices)
        for address in [known for known in self._listeners if known not in routes]:
            self._listeners.pop(address).server.close()
        for address, endpoints in routes.items():
            if address in self._listeners:
                self._listeners[address].endpoints = endpoints
            else:
                await self._open(address, endpoints)

    async def stop(self) -> None:
        """Close everything."""
        for listener in self._listeners.values():
            listener.server.close()
        self._listeners.clear()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _open(self, address: Address, endpoints: tuple[Address, ...]) -> None:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            if task is not None:
                self._connections.add(task)
                task.add_done_callback(self._connections.discard)
            with contextlib.suppress(asyncio.CancelledError):
                await self._relay(address, reader, writer)

        try:
            server = await asyncio.start_server(accept, *address)
        except OSError as error:
            _LOG.warning("service address %s:%d: %s", *address, error)
            return
        self._listeners[address] = _Listener(server, endpoints)

    async def _relay(
        self, address: Address, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        target = await self._connect(address)
        if target is None:
            writer.transport.abort()
            return
        target_reader, target_writer = target
        pumps = [
            asyncio.ensure_future(_pump(reader, target_writer)),
            asyncio.ensure_future(_pump(target_reader, writer)),
        ]
        try:
            await asyncio.gather(*pumps)
        except OSError:
            writer.transport.abort()
        finally:
            for task in pumps:
                task.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            writer.close()
            target_writer.close()

    async def _connect(self, address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """Connect to the endpoint whose turn it is, else to the next ones."""
        listener = self._listeners.get(address)
        if listener is None:
            return None
        endpoints, first = listener.endpoints, next(listener.turn)
        for index in range(len(endpoints)):
            host, port = endpoints[(first + index) % len(endpoints)]
            with contextlib.suppress(OSError, TimeoutError):
                return await asyncio.wait_for(asyncio.open_connection(host, port), _CONNECT_SECONDS)
        return None


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one direction until its end, and pass the end on."""
    while data := await reader.read(_CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError, RuntimeError):
        writer.write_eof()
