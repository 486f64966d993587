"""Write the events that a kubelet would, as far as somebody might look for a cause in them.

Losing an event is no error. Equal events of one pod are written once and then counted by nobody: it must
never flood the API server.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import aiohttp

from e2e.localnode.api_client import ApiClient, ApiError
from e2e.localnode.status import rfc3339

COMPONENT = "stowage-localnode"


class Recorder:
    """Writes events about one pod, in the background."""

    def __init__(self, api: ApiClient, pod: Mapping[str, Any]) -> None:
        self._api = api
        self._pod = pod
        self._known: set[tuple[str, str]] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def report(self, kind: str, reason: str, message: str) -> None:
        """Record an event of type `kind` (Normal, Warning)."""
        if (reason, message) in self._known:
            return
        self._known.add((reason, message))
        task = asyncio.create_task(self._write(kind, reason, message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def flush(self) -> None:
        """Wait for what is being written."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _write(self, kind: str, reason: str, message: str) -> None:
        metadata = self._pod["metadata"]
        now = rfc3339(datetime.now(UTC))
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{metadata['name'][:200]}.", "namespace": metadata["namespace"]},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
            },
            "type": kind,
            "reason": reason,
            "message": message[:1024],
            "source": {"component": COMPONENT, "host": self._pod["spec"].get("nodeName", "")},
            "reportingComponent": COMPONENT,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        with contextlib.suppress(ApiError, aiohttp.ClientError, OSError, TimeoutError):
            await self._api.create(f"/api/v1/namespaces/{metadata['namespace']}/events", body)
