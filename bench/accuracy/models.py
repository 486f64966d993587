"""The folder of model configurations: `<org>--<name>/config.json`, where there is one `hf_quant_config.json`, and
`index.json` from model id to folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from stowage.api.refusal import Refusal
from stowage.model.config_json import read_profile
from stowage.model.known_total import with_total
from stowage.model.profile import ModelProfile
from stowage_runtime.contract import summarize


class ModelFolder:
    """Reads profiles by model id, each once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[tuple[str, str], ModelProfile | str] = {}

    @cached_property
    def _index(self) -> dict[str, str]:
        path = self._folder / "index.json"
        content: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return content

    def profile(self, model_id: str, layout: Mapping[str, Any] | None = None) -> ModelProfile | str:
        """Give the profile of a model, or a sentence that says why there is none.

        `layout` is a quantisation block to read it with, in place of the one in config.json.
        """
        key = (model_id, json.dumps(layout, sort_keys=True))
        if key not in self._known:
            self._known[key] = self._read(model_id, layout)
        return self._known[key]

    def _read(self, model_id: str, layout: Mapping[str, Any] | None) -> ModelProfile | str:
        folder = self._folder / self._index.get(model_id, model_id.replace("/", "--"))
        path = folder / "config.json"
        if not path.exists():
            return f"there is no config.json for {model_id}"
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if layout is not None:
            config["quantization_config"] = dict(layout)
        sidecar = folder / "hf_quant_config.json"
        summary = summarize(
            {},
            source=f"hf://{model_id}",
            revision="0" * 40,
            config=config,
            quantization=json.loads(sidecar.read_text(encoding="utf-8")) if sidecar.exists() else None,
        )
        answer = read_profile(summary, guess=True)
        if isinstance(answer, Refusal):
            return answer.message
        total = _total_bytes(folder / "checkpoint.json") if answer.weight_band and layout is None else None
        return answer if total is None else with_total(answer, total)


def _total_bytes(path: Path) -> int | None:
    """Give the bytes of a checkpoint, where the folder knows them; they only help where tensors are not known."""
    if not path.exists():
        return None
    total = json.loads(path.read_text(encoding="utf-8")).get("total_size_bytes")
    return total if isinstance(total, int) and total > 0 else None
