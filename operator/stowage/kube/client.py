"""Requests to the API server with plain dictionaries: the only module that sends any.

It sits on the official client's transport (TLS, credentials, token refresh) and leaves its generated models alone.
Every request has a time-out, every failure becomes a type of `stowage.kube.errors`, and nothing is retried here:
the work queue does that. It has no way to ask for a Secret.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client.api_client import ApiClient

from stowage.kube.errors import NotFound, Unreachable, error_from_response
from stowage.kube.kinds import Kind, kind_of
from stowage.world import ObjectRef

FIELD_MANAGER = "stowage"
PAGE_SIZE = 500
_APPLY = "application/apply-patch+yaml"
_JSON = "application/json"
_JSON_PATCH = "application/json-patch+json"

RequestObserver = Callable[[str, str], None]
"""Called with the HTTP method and the status code (or `<error>`) of every request."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a LIST; `resource_version` is that of the whole collection."""

    items: tuple[dict[str, Any], ...]
    resource_version: str


@dataclass(frozen=True, slots=True)
class Selector:
    """What a LIST is narrowed to; empty strings narrow nothing."""

    label: str = ""
    field: str = ""


class KubeClient:
    """Plain-dictionary access to the kinds of `stowage.kube.kinds`.

    `configuration` is what `load_connection` gives; `timeout_seconds` bounds each request from connecting to the
    last byte.
    """

    def __init__(
        self, configuration: Any, timeout_seconds: float = 30.0, observer: RequestObserver | None = None
    ) -> None:
        self._configuration = configuration
        self._rest = ApiClient(configuration=configuration).rest_client
        self._timeout_seconds = timeout_seconds
        self._observer = observer

    @property
    def configuration(self) -> Any:
        """The connection that this client uses."""
        return self._configuration

    async def close(self) -> None:
        """Close all connections."""
        await self._rest.close()

    async def get(self, ref: ObjectRef, timeout_seconds: float | None = None) -> dict[str, Any]:
        """The object as it is now, straight from the server; raises NotFound."""
        path = kind_of(ref).path(ref.namespace, ref.name)
        return await self._send("GET", path, timeout_seconds=timeout_seconds)

    async def list_pages(
        self, kind: Kind, namespace: str | None = None, selector: Selector = Selector()
    ) -> AsyncIterator[Page]:
        """The collection in pages of 500; raises Gone when it changed too much between two pages."""
        query = {"limit": str(PAGE_SIZE)}
        if selector.label:
            query["labelSelector"] = selector.label
        if selector.field:
            query["fieldSelector"] = selector.field
        while True:
            answer = await self._send("GET", kind.path(namespace), query)
            items = answer.get("items") or []
            for item in items:
                item.setdefault("apiVersion", kind.api_version)
                item.setdefault("kind", kind.kind)
            metadata = answer.get("metadata", {})
            yield Page(tuple(items), metadata.get("resourceVersion", ""))
            if not metadata.get("continue"):
                return
            query["continue"] = metadata["continue"]

    async def apply(self, intent: Mapping[str, Any]) -> dict[str, Any]:
        """Server-side apply of the whole intent, taking over conflicting fields.

        An intent with `metadata.uid` raises Conflict when another or no object is there.
        """
        return await self._apply(intent, "")

    async def apply_status(self, intent: Mapping[str, Any]) -> dict[str, Any]:
        """Server-side apply of the status; `intent` has apiVersion, kind, metadata and status only."""
        return await self._apply(intent, "status")

    async def set_managed_fields(
        self, live: Mapping[str, Any], managed_fields: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Say who holds which field of exactly this version of an object; raises Conflict for another version."""
        metadata = live["metadata"]
        path = kind_of(live).path(metadata.get("namespace"), metadata["name"])
        patch = [
            {"op": "replace", "path": f"/metadata/{name}", "value": value}
            for name, value in (
                ("uid", metadata["uid"]),
                ("resourceVersion", metadata["resourceVersion"]),
                ("managedFields", managed_fields),
            )
        ]
        query = {"fieldManager": FIELD_MANAGER}
        return await self._send("PATCH", path, query, patch, content_type=_JSON_PATCH)

    async def delete(self, ref: ObjectRef, uid: str) -> dict[str, Any]:
        """Delete in the background exactly the object with `uid`; raises Conflict for another one."""
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
        }
        return await self._send("DELETE", kind_of(ref).path(ref.namespace, ref.name), body=body)

    async def create(self, obj: Mapping[str, Any], timeout_seconds: float | None = None) -> dict[str, Any]:
        """POST a new object; raises AlreadyExists. For Events and the Lease only: children are applied."""
        path = kind_of(obj).path(obj["metadata"].get("namespace"))
        query = {"fieldManager": FIELD_MANAGER}
        return await self._send("POST", path, query, obj, timeout_seconds=timeout_seconds)

    async def replace(self, obj: Mapping[str, Any], timeout_seconds: float | None = None) -> dict[str, Any]:
        """PUT an object with its resourceVersion; raises Conflict. For the Lease only."""
        metadata = obj["metadata"]
        path = kind_of(obj).path(metadata.get("namespace"), metadata["name"])
        query = {"fieldManager": FIELD_MANAGER}
        return await self._send("PUT", path, query, obj, timeout_seconds=timeout_seconds)

    async def serves(self, kind: Kind) -> bool:
        """Whether the server has this kind at this version."""
        root = "/apis" if kind.group else "/api"
        try:
            answer = await self._send("GET", f"{root}/{kind.api_version}")
        except NotFound:
            return False
        return any(resource.get("name") == kind.plural for resource in answer.get("resources") or [])

    def _observed(self, method: str, code: str) -> None:
        if self._observer is not None:
            self._observer(method, code)

    async def _apply(self, intent: Mapping[str, Any], subresource: str) -> dict[str, Any]:
        metadata = intent["metadata"]
        path = kind_of(intent).path(metadata.get("namespace"), metadata["name"], subresource)
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._send("PATCH", path, query, intent, content_type=_APPLY)

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        *,
        content_type: str = _JSON,
        timeout_seconds: float | None = None,
    ) -> dict[str, Any]:
        url = f"{self._configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": _JSON, "Content-Type": content_type, "User-Agent": "stowage"}
        for setting in (await self._configuration.auth_settings()).values():
            headers[setting["key"]] = setting["value"]
        timeout = aiohttp.ClientTimeout(total=timeout_seconds or self._timeout_seconds)
        try:
            response = await self._rest.request(
                method, url, headers=headers, body=body, _request_timeout=timeout
            )
            data: bytes = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._observed(method, "<error>")
            raise Unreachable(
                0, "Unreachable", f"{method} {path}: {str(error) or type(error).__name__}"
            ) from error
        self._observed(method, str(response.status))
        if not 200 <= response.status < 300:
            raise error_from_response(response.status, response.headers, data)
        return _json_object(data, path)


def _json_object(data: bytes, path: str) -> dict[str, Any]:
    try:
        answer = json.loads(data)
    except ValueError as error:
        raise Unreachable(0, "NotJSON", f"{path}: the answer is no JSON: {data[:100]!r}") from error
    if not isinstance(answer, dict):
        raise Unreachable(0, "NotJSON", f"{path}: the answer is no object")
    return answer
