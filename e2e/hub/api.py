"""The routes of the Hub that its client, and vLLM through it, ask for.

Why: model information, listings and files under branch, tag or commit, answered in the Hub's own JSON.
Paths and fields follow the requests of `huggingface_hub` 2.4 (`hf_api.py`, `file_download.py`).
It must never let a listing and a file of one commit disagree.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qs, unquote

from e2e.hub import access, listing
from e2e.hub.answers import Answer, RefusalError, error
from e2e.hub.faults import Fault, Faults
from e2e.hub.repository import Snapshot
from e2e.hub.store import MAIN, Store

Query = Mapping[str, Sequence[str]]

_MODEL_KEYWORDS = ("revision", "tree", "paths-info", "refs", "safetensors-metadata")


@dataclass(frozen=True, slots=True)
class Route:
    """A request taken apart.

    Which repository, what of it (`info` if only its name), and the rest of the path.

    """

    repo_id: str
    what: str
    rest: tuple[str, ...]

    @property
    def revision(self) -> str:
        """The revision in the path, `main` where it names none."""
        return (
            self.rest[0] if self.rest and self.what in ("revision", "tree", "paths-info", "resolve") else MAIN
        )

    @property
    def file(self) -> str | None:
        """The file asked for; None for everything that is not a file."""
        return "/".join(self.rest[1:]) if self.what == "resolve" else None


def route_of(path: str) -> Route | None:
    """Take a (still encoded) path apart; None if the Hub has no such address."""
    segments = [unquote(segment) for segment in path.strip("/").split("/")]
    if segments[:2] == ["api", "models"]:
        return _split(segments[2:], _MODEL_KEYWORDS)
    route = _split(segments, ("resolve",))
    return route if route is not None and route.what == "resolve" and len(route.rest) > 1 else None


def _split(segments: list[str], keywords: tuple[str, ...]) -> Route | None:
    for position in (1, 2):
        if len(segments) > position and segments[position] in keywords:
            return Route("/".join(segments[:position]), segments[position], tuple(segments[position + 1 :]))
    return Route("/".join(segments), "info", ()) if len(segments) in (1, 2) and segments[0] else None


@dataclass(frozen=True, slots=True)
class Api:
    """Answers requests from a store, under the faults in force."""

    store: Store
    faults: Faults

    def answer(self, method: str, path: str, query: Query, body: bytes, token: str) -> Answer:
        """Return the answer to one request; `RefusalError` carries one that ends it early."""
        if path == "/api/whoami-v2":
            return (
                Answer.of_json({"name": "tester", "type": "user", "orgs": []})
                if token
                else access.INVALID_TOKEN
            )
        route = route_of(path)
        if route is None or method not in ("GET", "HEAD", "POST"):
            return error(404, "", f"no such address: {path}")
        fault = self.faults.take(route.repo_id, route.file)
        if fault is not None and fault.kind == "hang":
            return Answer(fault=fault)
        access.check(fault, token, is_file=route.file is not None)
        revisions = self.store.revisions(route.repo_id)
        if not revisions:
            raise RefusalError(access.missing_repository(token))
        if route.what == "refs":
            return Answer.of_json(listing.references(revisions))
        snapshot = self.store.resolve(route.repo_id, route.revision)
        if snapshot is None:
            return error(404, "RevisionNotFound", f"Invalid rev id: {route.revision}")
        return self._of_snapshot(route, snapshot, query, body, fault)

    def _of_snapshot(
        self, route: Route, snapshot: Snapshot, query: Query, body: bytes, fault: Fault | None
    ) -> Answer:
        if route.file is not None:
            return _file(route.file, snapshot, fault)
        if route.what == "tree":
            recursive = query.get("recursive", ["false"])[0].lower() in ("true", "1")
            entries = listing.tree(snapshot, "/".join(route.rest[1:]), recursive=recursive)
            return (
                error(404, "EntryNotFound", "no such folder") if entries is None else Answer.of_json(entries)
            )
        if route.what == "paths-info":
            return Answer.of_json(listing.paths(snapshot, _posted_paths(body)))
        if route.what == "safetensors-metadata":
            metadata = listing.safetensors_metadata(snapshot, "/".join(route.rest))
            return (
                error(404, "EntryNotFound", "no such index") if metadata is None else Answer.of_json(metadata)
            )
        gated = fault is not None and fault.kind == "gated"
        return Answer.of_json(
            listing.model_info(route.repo_id, snapshot, gated=gated, blobs="blobs" in query)
        )


def _file(name: str, snapshot: Snapshot, fault: Fault | None) -> Answer:
    commit = {"X-Repo-Commit": snapshot.commit}
    file = snapshot.files.get(name)
    if file is None:
        refusal = error(404, "EntryNotFound", "Entry not found")
        return replace(refusal, headers={**refusal.headers, **commit})
    headers = {
        **commit,
        "ETag": f'"{file.etag}"',
        "Accept-Ranges": "bytes",
        "Content-Type": "application/octet-stream" if file.lfs else "text/plain; charset=utf-8",
    }
    if file.lfs:
        headers |= {"X-Linked-ETag": f'"{file.sha256}"', "X-Linked-Size": str(file.size_bytes)}
    return Answer(200, headers, file, fault)


def _posted_paths(body: bytes) -> list[str]:
    """Return the paths of a posted form or JSON object."""
    if body.lstrip().startswith(b"{"):
        parsed: dict[str, Any] = json.loads(body)
        return [str(path) for path in parsed.get("paths", [])]
    return parse_qs(body.decode()).get("paths", [])
