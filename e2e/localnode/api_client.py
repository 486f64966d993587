"""A small asynchronous client of the Kubernetes API: JSON over HTTPS with a kubeconfig, nothing generated.

Requests that meet a server which is away are repeated by the callers, which are all level-triggered; only
watches reconnect by themselves. It must never log a body: Secrets pass through here.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import ssl
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
import yaml

Json = dict[str, Any]
STRATEGIC_MERGE = "application/strategic-merge-patch+json"
MERGE = "application/merge-patch+json"
_LOG = logging.getLogger(__name__)
_TIMEOUT = aiohttp.ClientTimeout(total=30)
_WATCH_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10)


class ApiError(Exception):
    """The API server refused a request; `code` is the HTTP status and the message its own."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class ApiClient:
    """Requests to one API server as one user; an asynchronous context manager."""

    def __init__(self, kubeconfig: Path) -> None:
        self._access = _read_kubeconfig(kubeconfig)
        self._session: aiohttp.ClientSession | None = None

    @property
    def server(self) -> str:
        """The URL of the API server."""
        return str(self._access["server"]).rstrip("/")

    @property
    def authority(self) -> str:
        """The PEM text of the certificate authority; empty if the kubeconfig names none."""
        return str(self._access["authority"])

    async def __aenter__(self) -> ApiClient:
        headers = {"Authorization": f"Bearer {self._access['token']}"} if self._access["token"] else {}
        connector = aiohttp.TCPConnector(ssl=_tls(self._access), limit=0)
        self._session = aiohttp.ClientSession(connector=connector, headers=headers, timeout=_TIMEOUT)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str) -> Json:
        """Read an object or a list."""
        return await self._request("GET", path)

    async def create(self, path: str, body: Json) -> Json:
        """POST an object."""
        return await self._request("POST", path, body)

    async def patch(self, path: str, body: Json, kind: str = STRATEGIC_MERGE) -> Json:
        """PATCH an object or one of its subresources."""
        return await self._request("PATCH", path, body, kind)

    async def delete(self, path: str, options: Json | None = None) -> Json:
        """DELETE an object."""
        return await self._request("DELETE", path, options)

    async def list_and_watch(self, path: str, query: str = "") -> AsyncIterator[tuple[str, Json]]:
        """Yield `("LIST", list)` first and whenever the watch starts anew, then `(event type, object)`."""
        while True:
            try:
                listing = await self.get(f"{path}?{query}")
                yield "LIST", listing
                version = listing["metadata"]["resourceVersion"]
                async for kind, item in self._watch(path, query, version):
                    yield kind, item
            except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
                _LOG.debug("watch of %s: %s", path, error)
            await asyncio.sleep(0.5)

    async def _watch(self, path: str, query: str, version: str) -> AsyncIterator[tuple[str, Json]]:
        url = f"{self.server}{path}?{query}&watch=true&allowWatchBookmarks=true&resourceVersion={version}"
        async with self._open().get(url, timeout=_WATCH_TIMEOUT) as response:
            if response.status != 200:
                return
            async for line in _lines(response.content):
                event = json.loads(line)
                if event["type"] == "ERROR":  # 410 Gone: the version is too old, list again
                    return
                if event["type"] != "BOOKMARK":
                    yield event["type"], event["object"]

    async def _request(
        self, method: str, path: str, body: Json | None = None, content: str = "application/json"
    ) -> Json:
        data = json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": content} if data is not None else {}
        async with self._open().request(method, self.server + path, data=data, headers=headers) as response:
            text = await response.text()
            if response.status >= 400:
                raise ApiError(response.status, _message(text))
            answer: Json = json.loads(text)
            return answer

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the client is not open: use it as a context manager")
        return self._session


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Split a stream into lines of any length (aiohttp's own iteration has a limit)."""
    rest = b""
    async for chunk in stream.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line


def _message(text: str) -> str:
    try:
        return str(json.loads(text).get("message", text))
    except (ValueError, AttributeError):
        return text


def _read_kubeconfig(file: Path) -> Mapping[str, Any]:
    document = yaml.safe_load(file.read_text())
    context = _named(document["contexts"], document["current-context"])["context"]
    cluster = _named(document["clusters"], context["cluster"])["cluster"]
    user = _named(document["users"], context["user"])["user"]
    token = user.get("token") or ""
    if not token and user.get("tokenFile"):
        token = Path(user["tokenFile"]).read_text().strip()
    return {
        "server": cluster["server"],
        "insecure": bool(cluster.get("insecure-skip-tls-verify")),
        "authority": _text(cluster, "certificate-authority", file),
        "certificate": _text(user, "client-certificate", file),
        "key": _text(user, "client-key", file),
        "token": token,
    }


def _named(entries: list[Json], name: str) -> Json:
    return next(entry for entry in entries if entry["name"] == name)


def _text(entry: Mapping[str, Any], key: str, kubeconfig: Path) -> str:
    """Return what `key` (a path) or `key-data` (base64) holds."""
    if entry.get(f"{key}-data"):
        return base64.b64decode(entry[f"{key}-data"]).decode()
    return (kubeconfig.parent / entry[key]).read_text() if entry.get(key) else ""


def _tls(access: Mapping[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=access["authority"] or None)
    if access["insecure"]:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if access["certificate"]:
        with tempfile.NamedTemporaryFile("w") as pair:  # `ssl` reads a key from a file only; mode 0600
            pair.write(access["certificate"] + "\n" + access["key"])
            pair.flush()
            context.load_cert_chain(pair.name)
    return context
