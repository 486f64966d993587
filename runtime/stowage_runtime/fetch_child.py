"""One attempt to download a model with the image's own huggingface_hub; runs as a child of the agent.

It speaks JSON lines on stdout: ``files`` (what will be fetched and where it arrives), then ``done`` or
``problem``. It decides nothing about retries. Only here may a library of the image be imported.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
from typing import Any

from stowage_runtime.checkpoint_files import INDEX_NAME, needed_files, weight_files
from stowage_runtime.hub_errors import HubProblem, problem_of_exception

MAX_WORKERS = 8


def fetch_once(repo_id: str, revision: str) -> int:
    """Download one revision; returns the exit code."""
    what = f"{repo_id} at {revision}"
    try:
        import huggingface_hub
    except ImportError as error:
        return _problem(HubProblem("ModelFetchFailed", f"The image has no huggingface_hub: {error}."))
    try:
        return _download(huggingface_hub, repo_id, revision)
    except Exception as error:
        has_token = bool(os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN"))
        return _problem(problem_of_exception(error, what, has_token))


def _download(hub: Any, repo_id: str, revision: str) -> int:
    listed = hub.HfApi().list_repo_tree(repo_id, revision=revision, recursive=True)
    sizes = {entry.path: int(entry.size) for entry in listed if getattr(entry, "size", None) is not None}
    index = _index(hub, repo_id, revision) if INDEX_NAME in sizes else None
    if not weight_files(sizes, index):
        message = (
            f"{repo_id} at {revision} has no safetensors files; only safetensors checkpoints can be served."
        )
        return _problem(HubProblem("ModelFetchFailed", message))
    wanted = needed_files(sizes, index)
    total = sum(sizes[name] for name in wanted)
    cache = str(hub.constants.HF_HUB_CACHE)
    blobs = os.path.join(cache, "models--" + repo_id.replace("/", "--"), "blobs")
    _say({"event": "files", "totalBytes": total, "files": len(wanted), "blobs": blobs})
    full = _disk_problem(cache, total - bytes_in(blobs), repo_id)
    if full is not None:
        return _problem(full)
    path = hub.snapshot_download(
        repo_id,
        revision=revision,
        allow_patterns=[glob.escape(name) for name in wanted],
        max_workers=MAX_WORKERS,
    )
    _say({"event": "done", "path": str(path)})
    return 0


def _index(hub: Any, repo_id: str, revision: str) -> dict[str, Any] | None:
    path = hub.hf_hub_download(repo_id, INDEX_NAME, revision=revision)
    with open(path, encoding="utf-8") as file:
        content = json.load(file)
    return content if isinstance(content, dict) else None


def bytes_in(folder: str) -> int:
    """Return the bytes that the files of a folder really have on disk, finished or not."""
    total = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                status = entry.stat()
                # A sparse file has its full length from the start.
                total += min(status.st_size, status.st_blocks * 512) if status.st_blocks else status.st_size
    except OSError:
        return total
    return total


def _disk_problem(folder: str, missing_bytes: int, repo_id: str) -> HubProblem | None:
    os.makedirs(folder, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if missing_bytes <= free:
        return None
    gib = 1024**3
    message = f"{repo_id} needs {missing_bytes / gib:.1f} GiB more, {folder} has {free / gib:.1f} GiB free."
    return HubProblem("DiskFull", message)


def _problem(problem: HubProblem) -> int:
    _say({"event": "problem", **problem.to_dict()})
    return 1


def _say(event: dict[str, Any]) -> None:
    print(json.dumps(event), flush=True)
