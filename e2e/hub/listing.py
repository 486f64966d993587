"""Listings in the Hub's JSON: model information, trees, paths, references, safetensors headers.

Why: the client builds its own objects from these fields and fails on missing ones.
Facts: `ModelInfo`, `RepoFile`, `RepoSibling`, `GitRefs` in `huggingface_hub/hf_api.py`.
It must never say anything about files that the snapshot does not hold.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from e2e.hub.repository import HubFile, Snapshot

Json = dict[str, Any]

_MAX_HEADER_BYTES = 100_000_000


def model_info(repo_id: str, snapshot: Snapshot, *, gated: bool, blobs: bool) -> Json:
    """Answer of `/api/models/ID` at one commit."""
    return {
        "_id": snapshot.commit[:24],
        "id": repo_id,
        "modelId": repo_id,
        "author": repo_id.partition("/")[0],
        "sha": snapshot.commit,
        "private": False,
        "gated": "manual" if gated else False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": ["transformers", "safetensors", "text-generation"],
        "pipeline_tag": "text-generation",
        "library_name": "transformers",
        "lastModified": "2024-01-01T00:00:00.000Z",
        "createdAt": "2024-01-01T00:00:00.000Z",
        "siblings": [_sibling(name, file, blobs=blobs) for name, file in snapshot.files.items()],
        "usedStorage": sum(file.size_bytes for file in snapshot.files.values()),
    }


def tree(snapshot: Snapshot, folder: str, *, recursive: bool) -> list[Json] | None:
    """Entries under `folder` ("" is the top); None if there is no such folder."""
    prefix = f"{folder}/" if folder else ""
    below = {name: file for name, file in snapshot.files.items() if name.startswith(prefix)}
    if folder and not below:
        return None
    entries: dict[str, Json] = {}
    for name, file in below.items():
        parts = name.removeprefix(prefix).split("/")
        for depth in range(1, len(parts)):
            path = prefix + "/".join(parts[:depth])
            if depth == 1 or recursive:
                entries[path] = {"type": "directory", "oid": snapshot.commit, "size": 0, "path": path}
        if len(parts) == 1 or recursive:
            entries[name] = _tree_file(name, file)
    return list(entries.values())


def paths(snapshot: Snapshot, wanted: Sequence[str]) -> list[Json]:
    """Entries of exactly these paths; what does not exist is left out."""
    every = {entry["path"]: entry for entry in tree(snapshot, "", recursive=True) or ()}
    return [every[path] for path in wanted if path in every]


def references(revisions: Mapping[str, Snapshot]) -> Json:
    """Branches and tags: `main` is the branch, all others are tags."""

    def entry(kind: str, name: str) -> Json:
        return {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": revisions[name].commit}

    return {
        "branches": [entry("heads", name) for name in revisions if name == "main"],
        "tags": [entry("tags", name) for name in revisions if name != "main"],
        "converts": [],
    }


def safetensors_metadata(snapshot: Snapshot, index_name: str) -> Json | None:
    """Return the headers of all shards that an index names, in one answer; None if there is no such index."""
    index_file = snapshot.files.get(index_name)
    if index_file is None or not index_name.endswith(".index.json"):
        return None
    with index_file.open() as stream:
        index = json.load(stream)
    shards = sorted(set(index["weight_map"].values()))
    headers = {shard: _safetensors_header(snapshot.files[shard]) for shard in shards}
    return {"index": {"metadata": index.get("metadata")}, "headers": headers}


def _safetensors_header(file: HubFile) -> Json:
    with file.open() as stream:
        (size_bytes,) = struct.unpack("<Q", stream.read(8))
        header: Json = json.loads(stream.read(min(size_bytes, _MAX_HEADER_BYTES)))
    return header


def _sibling(name: str, file: HubFile, *, blobs: bool) -> Json:
    entry: Json = {"rfilename": name}
    if blobs:
        entry |= {"size": file.size_bytes, "blobId": file.git_oid}
        if file.lfs:
            entry["lfs"] = file.lfs_pointer()
    return entry


def _tree_file(name: str, file: HubFile) -> Json:
    entry: Json = {"type": "file", "oid": file.git_oid, "size": file.size_bytes, "path": name}
    if file.lfs:
        entry["lfs"] = file.lfs_pointer()
    return entry
