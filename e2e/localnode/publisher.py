"""Keep one pod's status in the API server equal to what the node knows, one write at a time.

Every write names the pod's uid, so that a pod of the same name that was born since is never overwritten; it
is repeated until the server has taken it or the pod is gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import aiohttp

from e2e.localnode.api_client import ApiClient, ApiError

_LOG = logging.getLogger(__name__)
_RETRY_SECONDS = 0.5


class StatusPublisher:
    """Writes what `current()` returns, whenever `touch` was called and it differs from the last write."""

    def __init__(
        self, api: ApiClient, namespace: str, name: str, uid: str, current: Callable[[], Any]
    ) -> None:
        self._api = api
        self._path = f"/api/v1/namespaces/{namespace}/pods/{name}/status"
        self._uid = uid
        self._current = current
        self._written: Any = None
        self._dirty = asyncio.Event()

    def touch(self) -> None:
        """Ask for a write."""
        self._dirty.set()

    async def run(self) -> None:
        """Write until cancelled, or until the pod is gone."""
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            try:
                await self.write()
            except ApiError as error:
                if error.code == 404:
                    return
                _LOG.warning("status of %s: %s", self._path, error)
                await self._again()
            except (aiohttp.ClientError, OSError, TimeoutError):
                await self._again()

    async def write(self) -> None:
        """Write now, if there is anything new."""
        status = self._current()
        if status != self._written:
            await self._api.patch(self._path, {"metadata": {"uid": self._uid}, "status": status})
            self._written = status

    async def _again(self) -> None:
        await asyncio.sleep(_RETRY_SECONDS)
        self._dirty.set()
