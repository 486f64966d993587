"""Finds the model that a command names: a folder on this machine, or a model on the Hub."""

from __future__ import annotations

import os
from pathlib import Path

from stowage.api.reasons import Reason
from stowage.api.refusal import Refusal
from stowage.feed.local_checkpoint import read_folder
from stowage.feed.resolver import resolve_now
from stowage_runtime.contract import CheckpointSummary


def read_model(text: str, revision: str | None = None) -> CheckpointSummary | Refusal:
    """Read a folder, `org/name` or `hf://org/name`; a token is taken from HF_TOKEN."""
    folder = Path(text)
    if folder.is_dir():
        return read_folder(folder)
    repo_id = text.removeprefix("hf://")
    if "://" in repo_id or repo_id.count("/") != 1 or repo_id.startswith(("/", ".", "~")):
        message = f"{text!r} is neither a folder nor a model on the Hub."
        return Refusal(Reason.INVALID_SPEC, message, "Write a folder's path or organisation/name.")
    return resolve_now(f"hf://{repo_id}", revision, os.environ.get("HF_TOKEN") or None)
