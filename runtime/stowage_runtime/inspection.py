"""Summarises a checkpoint that only a pod can read: a gated repository or a volume.

The operator reads no Secrets and mounts no volumes; a short pod runs this and hands the summary over once. It
reads headers only, never weights, and keeps nothing.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

from stowage_runtime.checkpoint_files import (
    CONFIG_NAME,
    INDEX_NAME,
    QUANTIZATION_NAME,
    missing_weights,
    weight_files,
)
from stowage_runtime.checkpoint_source import CheckpointSource, FolderSource, HubSource
from stowage_runtime.contract import CheckpointSummary, ContractError, summarize
from stowage_runtime.failures import AgentFailure
from stowage_runtime.safetensors_header import HeaderError, read_header
from stowage_runtime.server import Answer, Routes

_HUB_SCHEME = "hf://"


def open_source(source: str, revision: str, environment: Mapping[str, str]) -> CheckpointSource:
    """Return the source that ``hf://org/name`` or an absolute path stands for; raises AgentFailure."""
    if source.startswith(_HUB_SCHEME):
        return HubSource(source[len(_HUB_SCHEME) :].strip("/"), revision, environment)
    if source.startswith("/"):
        return FolderSource(source)
    raise AgentFailure(
        "InvalidLaunchSpec", f"--source is {source}; it must be hf://org/name or an absolute path."
    )


def inspect_checkpoint(source: CheckpointSource, name: str) -> CheckpointSummary:
    """Read configuration and headers; ``name`` is what the summary says as its source. Raises AgentFailure."""
    names = source.names()
    if CONFIG_NAME not in names:
        raise AgentFailure(
            "ModelNotFound", f"{name} has no {CONFIG_NAME}; it is no model that can be served."
        )
    index = _json(source, INDEX_NAME) if INDEX_NAME in names else None
    missing = missing_weights(names, index)
    if missing:
        raise AgentFailure("ModelFetchFailed", f"{name} lacks {missing[0]}, which {INDEX_NAME} names.")
    weights = weight_files(names, index)
    if not weights:
        message = f"{name} has no safetensors files; only safetensors checkpoints can be served."
        raise AgentFailure("ModelFetchFailed", message)
    try:
        return summarize(
            {file: _header(source, file) for file in weights},
            source=name,
            revision=source.revision(),
            config=_json(source, CONFIG_NAME),
            quantization=_json(source, QUANTIZATION_NAME) if QUANTIZATION_NAME in names else None,
        )
    except ContractError as error:
        raise AgentFailure("ModelFetchFailed", f"{name} cannot be summarised: {error}") from None


def _header(source: CheckpointSource, file: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    try:
        return read_header(lambda offset, length: source.read(file, offset, length))
    except HeaderError as error:
        raise AgentFailure("ModelFetchFailed", f"{file} cannot be read: {error}.") from None


def _json(source: CheckpointSource, file: str) -> dict[str, Any]:
    try:
        content = json.loads(source.read(file, 0, None))
    except ValueError as error:
        raise AgentFailure("ModelFetchFailed", f"{file} is not valid JSON: {error}.") from None
    if not isinstance(content, dict):
        raise AgentFailure("ModelFetchFailed", f"{file} is no JSON object.")
    return content


class SummaryDesk:
    """Hands the summary over, and knows when it was taken."""

    def __init__(self) -> None:
        self._summary: str | None = None
        self.taken = threading.Event()

    def put(self, summary: CheckpointSummary) -> None:
        """Make the summary available."""
        self._summary = summary.to_json() + "\n"

    def routes(self) -> Routes:
        """Return the routes of ``inspect``."""
        return {"/livez": lambda: Answer(200, "ok\n"), "/readyz": self._ready, "/inspection": self._hand_over}

    def _ready(self) -> Answer:
        return Answer(503, "reading\n") if self._summary is None else Answer(200, "ok\n")

    def _hand_over(self) -> Answer:
        if self._summary is None:
            return Answer(503, "reading\n")
        self.taken.set()
        return Answer(200, self._summary, "application/json")
