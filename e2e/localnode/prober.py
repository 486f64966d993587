"""Perform one check of a probe or a lifecycle hook: an HTTP request, a connection, a command.

It has no memory; `probe` draws the conclusions. Certificates are not checked, as the kubelet does not either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from e2e.localnode.container_root import join_spec
from e2e.localnode.processes import ContainerProcess, StartError, run_process


@dataclass(frozen=True, slots=True)
class Target:
    """The container that is checked: its pod's address, manifest, process and launch specification."""

    http: aiohttp.ClientSession
    address: str
    container: Mapping[str, Any]
    process: ContainerProcess
    spec: Mapping[str, Any]


async def check(action: Mapping[str, Any], target: Target, timeout_seconds: float) -> str:
    """Return the empty string for success, else one sentence that says what was wrong."""
    try:
        if "httpGet" in action:
            return await _http(action["httpGet"], target, timeout_seconds)
        if "tcpSocket" in action:
            return await _connect(action["tcpSocket"], target, timeout_seconds)
        return await _run(action["exec"]["command"], target, timeout_seconds)
    except TimeoutError:
        return f"no answer within {timeout_seconds:g} s"
    except (aiohttp.ClientError, OSError, StartError) as error:
        return str(error) or type(error).__name__


def port_number(port: int | str, container: Mapping[str, Any]) -> int:
    """Return the number of a port that may be named; raises `OSError` for an unknown name."""
    if isinstance(port, int) or str(port).isdigit():
        return int(port)
    for entry in container.get("ports") or []:
        if entry.get("name") == port:
            return int(entry["containerPort"])
    raise OSError(f"the container has no port named {port}")


async def _http(action: Mapping[str, Any], target: Target, timeout_seconds: float) -> str:
    host = action.get("host") or target.address
    scheme = (action.get("scheme") or "HTTP").lower()
    path = "/" + (action.get("path") or "/").lstrip("/")
    url = f"{scheme}://{host}:{port_number(action['port'], target.container)}{path}"
    headers = {"User-Agent": "kube-probe/local", "Connection": "close"}
    headers |= {entry["name"]: entry["value"] for entry in action.get("httpHeaders") or []}
    limit = aiohttp.ClientTimeout(total=timeout_seconds)
    async with target.http.get(url, headers=headers, timeout=limit, ssl=False) as response:
        if 200 <= response.status < 400:
            return ""
        return f"HTTP probe failed with statuscode: {response.status}"


async def _connect(action: Mapping[str, Any], target: Target, timeout_seconds: float) -> str:
    host = action.get("host") or target.address
    port = port_number(action["port"], target.container)
    _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), timeout_seconds)
    writer.close()
    await writer.wait_closed()
    return ""


async def _run(command: list[str], target: Target, timeout_seconds: float) -> str:
    code = await run_process(join_spec(target.spec, target.process.pid, command), timeout_seconds)
    return "" if code == 0 else f"command {' '.join(command)} exited with {code}"
