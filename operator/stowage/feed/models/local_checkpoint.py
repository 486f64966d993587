"""Reads what a model is from a folder: config.json, the headers of its weight files, or a ready-made summary.

For the command line and for tests; the operator itself never reads models from its own disk.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from stowage.api.reasons import Reason
from stowage.api.refusal import Refusal
from stowage.feed.models.resolver import (
    CONFIG_NAME,
    INDEX_NAME,
    QUANTIZATION_NAME,
    Header,
    Unusable,
    fold,
    parse_object,
    weight_files,
)
from stowage_runtime.contract import CheckpointSummary, ContractError

SUMMARY_NAME: Final = "checkpoint.json"
_LONGEST_HEADER_BYTES: Final = 100_000_000


def read_folder(folder: Path, source: str | None = None) -> CheckpointSummary | Refusal:
    """Summarise the checkpoint in a folder; `source` is the name that the summary gives (default: the folder's).

    A `checkpoint.json` as `stowage inspect` prints it is taken as it is; config.json without weight files gives a
    summary without tensors.
    """
    name = source or folder.name or str(folder)
    try:
        return _ready_made(folder) or _read(folder, name)
    except Unusable as problem:
        return problem.refusal
    except OSError as error:
        message = f"{folder} cannot be read: {error.strerror or error}."
        return Refusal(Reason.MODEL_NOT_FOUND, message, "Name a folder with a config.json.")


def _ready_made(folder: Path) -> CheckpointSummary | None:
    path = folder / SUMMARY_NAME
    if not path.is_file():
        return None
    content = parse_object(path.read_bytes(), SUMMARY_NAME, str(folder))
    if "tensors" not in content:
        return None
    try:
        return CheckpointSummary.from_dict(content)
    except ContractError as error:
        raise Unusable(Refusal(Reason.INVALID_CHECKPOINT, f"{path}: {error}")) from None


def _read(folder: Path, name: str) -> CheckpointSummary | Refusal:
    config = _object(folder, CONFIG_NAME)
    if config is None:
        message = f"{folder} has no {CONFIG_NAME}."
        return Refusal(Reason.INVALID_MODEL_CONFIG, message, "Name a folder with a config.json.")
    names = [path.name for path in folder.iterdir() if path.is_file()]
    files = weight_files(names, _object(folder, INDEX_NAME), str(folder))
    headers = {file: _header(folder / file) for file in files}
    return fold(name, None, config, headers, _object(folder, QUANTIZATION_NAME))


def _object(folder: Path, name: str) -> Mapping[str, Any] | None:
    path = folder / name
    return parse_object(path.read_bytes(), name, str(folder)) if path.is_file() else None


def _header(path: Path) -> Header:
    """Read the header of a safetensors file: eight bytes of length, then JSON."""
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        content = file.read(length) if 2 <= length <= _LONGEST_HEADER_BYTES else b""
    try:
        entries = json.loads(content)
        return {
            name: (str(entry["dtype"]), tuple(int(size) for size in entry["shape"]))
            for name, entry in entries.items()
            if name != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        message = f"{path} has no readable safetensors header."
        raise Unusable(Refusal(Reason.INVALID_CHECKPOINT, message, "Copy the file again.")) from None
