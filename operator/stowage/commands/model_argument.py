"""Finds the model that a command names: a folder on this machine, or a model on the Hub."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Final

from stowage.api.reasons import Reason
from stowage.api.refusal import Refusal
from stowage.feed.models.local_checkpoint import read_folder
from stowage.feed.models.resolver import resolve_now
from stowage_runtime.contract import CheckpointSummary

_BY_TOKEN: Final = frozenset({Reason.MODEL_ACCESS_DENIED, Reason.MODEL_NOT_FOUND})
"""Refusals that a token may turn: the Hub answers strangers alike for a private and for a missing model."""

_HINT_UNREACHABLE: Final = (
    "Check the network, proxy and HF_ENDPOINT, or give a folder with its config.json (--model-dir of plan and explain, "
    "--model of memory)."
)
_HINT_ANONYMOUS: Final = (
    "Check the name; a gated or private model needs a token: accept its licence on the Hub and "
    "`export HF_TOKEN=…`, or give a folder with its config.json."
)
_HINT_NO_ACCESS: Final = (
    "Check the name, and that the account of the token in HF_TOKEN may read the model (gated models: accept "
    "the licence on the Hub), or give a folder with its config.json."
)


def read_model(text: str, revision: str | None = None) -> CheckpointSummary | Refusal:
    """Read a folder, `org/name` or `hf://org/name`; a token is taken from HF_TOKEN."""
    folder = Path(text)
    if folder.is_dir():
        return read_folder(folder)
    repo_id = text.removeprefix("hf://")
    if "://" in repo_id or repo_id.count("/") != 1 or repo_id.startswith(("/", ".", "~")):
        message = f"{text!r} is neither a folder nor a model on the Hub."
        return Refusal(Reason.INVALID_SPEC, message, "Write a folder's path or organisation/name.")
    return read_hub(f"hf://{repo_id}", revision)


def read_hub(source: str, revision: str | None) -> CheckpointSummary | Refusal:
    """Read an `hf://` source with the token that HF_TOKEN holds, if any; a refusal says how to give one."""
    token = os.environ.get("HF_TOKEN") or None
    result = resolve_now(source, revision, token)
    if isinstance(result, Refusal) and result.reason is Reason.HUB_UNREACHABLE:
        return replace(result, hint=_HINT_UNREACHABLE)
    if isinstance(result, Refusal) and result.reason in _BY_TOKEN:
        return replace(result, hint=_HINT_NO_ACCESS if token else _HINT_ANONYMOUS)
    return result
