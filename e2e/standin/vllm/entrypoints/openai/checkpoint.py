"""Finds a model's config.json and the bytes of its weights, where vLLM would look for them.

Why: the stand-in computes its KV cache from the real architecture, and must fail on a missing model as vLLM
does. Order: a local folder, the Hub cache (`HF_HUB_CACHE`, `HF_HOME`), then `HF_ENDPOINT` unless
`HF_HUB_OFFLINE`.
It must never download weights: their size is enough.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TIMEOUT_SECONDS = 30


class ModelMissingError(Exception):
    """The model cannot be found or read; the message is what vLLM would end with."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model's configuration and the bytes of its safetensors files (0 if they are not there)."""

    config: dict[str, Any]
    weight_bytes: int


def find(model: str, revision: str | None) -> Checkpoint:
    """Find `model` (folder or repository id) at `revision`."""
    folder = Path(model)
    if not (folder / "config.json").is_file():
        folder = _cached(model, revision) or folder
    if (folder / "config.json").is_file():
        weight_bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        return Checkpoint(_parse((folder / "config.json").read_bytes(), model), weight_bytes)
    return Checkpoint(_parse(_download(model, revision or "main"), model), 0)


def _cached(model: str, revision: str | None) -> Path | None:
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    repository = cache / ("models--" + model.replace("/", "--"))
    reference = repository / "refs" / (revision or "main")
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision
    snapshot = repository / "snapshots" / (commit or "")
    return snapshot if commit and (snapshot / "config.json").is_file() else None


def _download(model: str, revision: str) -> bytes:
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
        raise ModelMissingError(f"Cannot find {model} in the local cache, and HF_HUB_OFFLINE is set.")
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/")
    if not endpoint.startswith(("http://", "https://")):
        raise ModelMissingError(f"{model} is not a local folder, and HF_ENDPOINT does not name a hub.")
    headers = {"Authorization": f"Bearer {token}"} if (token := os.environ.get("HF_TOKEN")) else {}
    request = urllib.request.Request(f"{endpoint}/{model}/resolve/{revision}/config.json", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:
            content: bytes = response.read()
            return content
    except (urllib.error.URLError, OSError) as error:
        raise ModelMissingError(
            f"Can't load the configuration of '{model}' from {endpoint}: {error}"
        ) from error


def _parse(content: bytes, model: str) -> dict[str, Any]:
    try:
        config = json.loads(content)
    except ValueError as error:
        raise ModelMissingError(f"config.json of '{model}' is not a valid JSON file: {error}") from error
    if not isinstance(config, dict) or "num_hidden_layers" not in config:
        raise ModelMissingError(f"config.json of '{model}' has no num_hidden_layers.")
    return config
