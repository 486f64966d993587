"""Where an inspection reads a checkpoint from: a folder, or a repository of the Hub by range requests.

Only what a summary needs is read: small JSON files whole, of the weights only the headers. The token travels
in the request to the Hub itself, never to the storage that it redirects to.
"""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any, Protocol

from stowage_runtime.failures import AgentFailure
from stowage_runtime.hub_errors import problem_of_exception, problem_of_status

_REQUEST_SECONDS = 30.0
_LONGEST_JSON_BYTES = 256 * 1024 * 1024
_DEFAULT_ENDPOINT = "https://huggingface.co"


class CheckpointSource(Protocol):
    """A set of named files."""

    def names(self) -> list[str]:
        """Return the names of all files, with / between folders."""

    def read(self, name: str, offset: int, length: int | None) -> bytes:
        """Return a part of a file, the rest of it when ``length`` is None."""

    def revision(self) -> str | None:
        """Return the commit that is read, where there is one."""


class FolderSource:
    """A checkpoint in a folder of a mounted volume."""

    def __init__(self, path: str) -> None:
        if not os.path.isdir(path):
            raise AgentFailure("ModelNotFound", f"There is no folder {path} on the mounted volume.")
        self._path = path

    def names(self) -> list[str]:
        """Return the names of all files below the folder."""
        found = []
        for folder, _, files in os.walk(self._path, followlinks=True):
            relative = os.path.relpath(folder, self._path)
            found += [name if relative == "." else f"{relative}/{name}" for name in files]
        return sorted(found)

    def read(self, name: str, offset: int, length: int | None) -> bytes:
        """Return a part of a file."""
        try:
            with open(os.path.join(self._path, name), "rb") as file:
                file.seek(offset)
                return file.read() if length is None else file.read(length)
        except OSError as error:
            raise AgentFailure("ModelFetchFailed", f"{name} cannot be read: {error}.") from None

    def revision(self) -> str | None:
        """Return None: a folder has no commits."""
        return None


class _NoTokenAbroad(urllib.request.HTTPRedirectHandler):
    """Follows redirects, and leaves the token behind when they lead to another host."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if (
            request is not None
            and urllib.parse.urlsplit(newurl).netloc != urllib.parse.urlsplit(req.full_url).netloc
        ):
            request.remove_header("Authorization")
        return request


class HubSource:
    """A checkpoint in a repository of the Hub, at one revision that is resolved to its commit at once."""

    def __init__(self, repo_id: str, revision: str, environment: Mapping[str, str]) -> None:
        self._repo_id = repo_id
        self._endpoint = (environment.get("HF_ENDPOINT") or _DEFAULT_ENDPOINT).rstrip("/")
        if not self._endpoint.startswith(("http://", "https://")):
            message = f"HF_ENDPOINT is {self._endpoint}; it must begin with http:// or https://."
            raise AgentFailure("HubUnreachable", message)
        self._token = environment.get("HF_TOKEN") or environment.get("HUGGING_FACE_HUB_TOKEN")
        self._opener = urllib.request.build_opener(_NoTokenAbroad())
        path = f"/api/models/{repo_id}/revision/{urllib.parse.quote(revision, safe='')}"
        info = json.loads(self._get(path, f"{repo_id} at {revision}"))
        self._commit = str(info.get("sha") or revision)
        self._names = sorted(str(entry["rfilename"]) for entry in info.get("siblings") or [])

    def names(self) -> list[str]:
        """Return the names of all files of the repository."""
        return self._names

    def revision(self) -> str | None:
        """Return the commit."""
        return self._commit

    def read(self, name: str, offset: int, length: int | None) -> bytes:
        """Return a part of a file by a range request."""
        path = f"/{self._repo_id}/resolve/{self._commit}/{urllib.parse.quote(name)}"
        what = f"{name} of {self._repo_id} at {self._commit}"
        if offset == 0 and length is None:
            return self._get(path, what)
        last = "" if length is None else str(offset + length - 1)
        content = self._get(path, what, f"bytes={offset}-{last}")
        return content if length is None else content[:length]

    def _get(self, path: str, what: str, byte_range: str | None = None) -> bytes:
        headers = {"User-Agent": "stowage-agent", "Accept-Encoding": "identity"}
        if byte_range is not None:
            headers["Range"] = byte_range
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        # The endpoint's scheme was checked.
        request = urllib.request.Request(self._endpoint + path, headers=headers)  # noqa: S310
        try:
            with self._opener.open(request, timeout=_REQUEST_SECONDS) as answer:
                if byte_range is not None and answer.status != http.client.PARTIAL_CONTENT:
                    raise AgentFailure(
                        "ModelFetchFailed", f"The Hub does not answer range requests for {what}."
                    )
                content: bytes = answer.read(_LONGEST_JSON_BYTES)
                return content
        except urllib.error.HTTPError as error:
            with error:
                problem = problem_of_status(error.code, what, bool(self._token), dict(error.headers))
            problem = problem or problem_of_exception(error, what, bool(self._token))
            raise AgentFailure(problem.reason, problem.message) from None
        except (OSError, http.client.HTTPException) as error:
            problem = problem_of_exception(error, what, bool(self._token))
            reason = "HubUnreachable" if isinstance(error, urllib.error.URLError) else problem.reason
            raise AgentFailure(reason, problem.message) from None
