"""Keep a copy of one kind of object by list and watch. It only reads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from e2e.localnode.api_client import ApiClient

Json = dict[str, Any]


class Mirror:
    """All objects at `path`, by uid; `changed(object, gone)` is told each one that is new, newer or gone."""

    def __init__(
        self, api: ApiClient, path: str, changed: Callable[[Json, bool], Awaitable[None]], query: str = ""
    ) -> None:
        self.objects: dict[str, Json] = {}
        self._api = api
        self._path = path
        self._query = query
        self._changed = changed

    async def run(self) -> None:
        """Follow until cancelled."""
        async for kind, item in self._api.list_and_watch(self._path, self._query):
            if kind == "LIST":
                await self._replace(item["items"] or [])
            else:
                await self._set(item, gone=kind == "DELETED")

    async def _replace(self, items: list[Json]) -> None:
        current = {item["metadata"]["uid"] for item in items}
        for gone in [item for uid, item in self.objects.items() if uid not in current]:
            await self._set(gone, gone=True)
        for item in items:
            await self._set(item, gone=False)

    async def _set(self, item: Json, *, gone: bool) -> None:
        uid = item["metadata"]["uid"]
        if gone:
            self.objects.pop(uid, None)
        else:
            self.objects[uid] = item
        await self._changed(item, gone)
