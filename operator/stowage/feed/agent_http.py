"""Requests to agents in pods: short, bounded, never through a proxy.

A pod is asked by its address; what it answers is data from a place that the operator does not control, so its size is
limited and it is parsed by the contract's strict readers only.
"""

from __future__ import annotations

import aiohttp

from stowage.render.names import AGENT_PORT

MAXIMUM_BYTES = 8 << 20


class AgentUnavailable(Exception):
    """The agent did not give a usable answer; the message says why."""


class AgentHttp:
    """GET requests to agents; `timeout_seconds` bounds each from connecting to the last byte."""

    def __init__(self, timeout_seconds: float, connections: int = 32) -> None:
        timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        connector = aiohttp.TCPConnector(limit=connections, force_close=True)
        self._session = aiohttp.ClientSession(timeout=timeout, connector=connector, trust_env=False)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def get(self, pod_ip: str, path: str) -> str:
        """The body of `http://POD:9400/path`; raises AgentUnavailable for anything but a 200."""
        host = f"[{pod_ip}]" if ":" in pod_ip else pod_ip
        try:
            async with self._session.get(
                f"http://{host}:{AGENT_PORT}{path}", allow_redirects=False
            ) as answer:
                body = await answer.content.read(MAXIMUM_BYTES + 1)
                while len(body) <= MAXIMUM_BYTES and not answer.content.at_eof():
                    body += await answer.content.read(MAXIMUM_BYTES + 1 - len(body))
                if answer.status != 200:
                    raise AgentUnavailable(f"{path} answered {answer.status}")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise AgentUnavailable(f"{path}: {str(error) or type(error).__name__}") from error
        if len(body) > MAXIMUM_BYTES:
            raise AgentUnavailable(f"{path} answered more than {MAXIMUM_BYTES} bytes")
        return body.decode("utf-8", "replace")
