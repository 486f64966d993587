"""The folder of model configurations: `<org>--<name>/config.json`, where there is one `hf_quant_config.json`, and
`index.json` from model id to folder."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from stowage.api.refusal import Refusal
from stowage.model.config_json import read_profile
from stowage.model.profile import ModelProfile
from stowage_runtime.contract import summarize


class ModelFolder:
    """Reads profiles by model id, each once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, ModelProfile | str] = {}

    @cached_property
    def _index(self) -> dict[str, str]:
        path = self._folder / "index.json"
        content: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return content

    def profile(self, model_id: str) -> ModelProfile | str:
        """Give the profile of a model, or a sentence that says why there is none."""
        if model_id not in self._known:
            self._known[model_id] = self._read(model_id)
        return self._known[model_id]

    def _read(self, model_id: str) -> ModelProfile | str:
        folder = self._folder / self._index.get(model_id, model_id.replace("/", "--"))
        path = folder / "config.json"
        if not path.exists():
            return f"there is no config.json for {model_id}"
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        sidecar = folder / "hf_quant_config.json"
        summary = summarize(
            {},
            source=f"hf://{model_id}",
            revision="0" * 40,
            config=config,
            quantization=json.loads(sidecar.read_text(encoding="utf-8")) if sidecar.exists() else None,
        )
        answer = read_profile(summary)
        return answer.message if isinstance(answer, Refusal) else answer
