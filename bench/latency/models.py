"""Profiles by model id and precision, from a folder in the memory bench's form or from the wheel's model configs.

A row may name a plain checkpoint and say that it ran in fewer bits. Where no quantised configuration is at hand,
the plain one is given the quantisation that such checkpoints have; that is an assumption, and said.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.latency.written import precision_in_name
from stowage.api.refusal import Refusal
from stowage.model.config_json import read_profile
from stowage.model.profile import ModelProfile
from stowage_runtime.contract import summarize

_TENSOR_FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic"}
_AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}
_GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True}
_GPTQ8 = {**_GPTQ, "bits": 8}
_INT8 = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {
                "num_bits": 8,
                "type": "int",
                "symmetric": True,
                "strategy": "channel",
                "dynamic": False,
            },
            "input_activations": {
                "num_bits": 8,
                "type": "int",
                "symmetric": True,
                "strategy": "token",
                "dynamic": True,
            },
        }
    },
}
_NVFP4 = {"quantization": {"quant_algo": "NVFP4", "group_size": 16, "exclude_modules": ["lm_head"]}}
_NVIDIA_FP8 = {"quantization": {"quant_algo": "FP8", "exclude_modules": ["lm_head"]}}

_BITS_AND_BYTES = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


@dataclass(frozen=True)
class Served:
    """A profile, and what was assumed to get it."""

    profile: ModelProfile
    assumed: tuple[str, ...] = ()


class LatencyModels:
    """Reads profiles, each once."""

    def __init__(self, *folders: Path) -> None:
        self._folders = folders
        self._known: dict[tuple[str, str | None], Served | str] = {}
        self._indices: dict[Path, dict[str, str]] = {}

    def served(self, model_id: str, precision: object) -> Served | str:
        """Give the profile of a model in a precision, or a sentence that says why there is none."""
        precision = _word(precision)
        key = (model_id, precision)
        if key not in self._known:
            self._known[key] = self._read(model_id, precision)
        return self._known[key]

    def _read(self, model_id: str, precision: str | None) -> Served | str:
        said_in_name = precision is None and precision_in_name(model_id)
        bits = _normal(said_in_name or precision)
        twin = _TWINS.get((model_id, bits))
        found = self._find(twin) if twin else None
        if twin is not None and found is not None:
            return _profile(twin, *found, ())
        plain = self._find(model_id) or self._find(_base_of(model_id))
        if plain is None:
            return f"there is no config.json for {model_id}"
        config, sidecar = plain
        if bits in (None, "bf16") or sidecar is not None or _quantised(config):
            return _profile(model_id, config, sidecar, ())
        return _requantised(model_id, config, str(bits), precision)

    def _find(self, model_id: str) -> tuple[dict[str, Any], dict[str, Any] | None] | None:
        name = model_id.replace("/", "--")
        for folder in self._folders:
            inside = folder / self._index(folder).get(model_id, name)
            for config, sidecar in (
                (inside / "config.json", inside / "hf_quant_config.json"),
                (folder / f"{name}_config.json", folder / f"{name}_hf_quant_config.json"),
            ):
                if config.exists():
                    beside = json.loads(sidecar.read_text(encoding="utf-8")) if sidecar.exists() else None
                    return json.loads(config.read_text(encoding="utf-8")), beside
        return None

    def _index(self, folder: Path) -> dict[str, str]:
        if folder not in self._indices:
            path = folder / "index.json"
            self._indices[folder] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return self._indices[folder]


_TWINS: Mapping[tuple[str, str | None], str] = {
    ("meta-llama/Llama-3.1-70B", "fp8"): "nvidia/Llama-3.1-70B-Instruct-FP8",
    ("MiniMaxAI/MiniMax-M2.5", "nvfp4"): "nvidia/MiniMax-M2.5-NVFP4",
    ("moonshotai/Kimi-K2.5", "nvfp4"): "nvidia/Kimi-K2.5-NVFP4",
    ("Qwen/Qwen3-32B", "fp8"): "Qwen/Qwen3-32B-FP8",
}
"""The quantised checkpoints that the publisher's scripts load for a model's name and precision."""

_ADDED: Mapping[str, tuple[dict[str, Any] | None, dict[str, Any] | None]] = {
    "fp8": (_TENSOR_FP8, None),
    "int8": (_INT8, None),
    "awq": (_AWQ, None),
    "gptq": (_GPTQ, None),
    "gptq8": (_GPTQ8, None),
    "int4": (_AWQ, None),
    "nvfp4": (None, _NVFP4),
    "nf4": (_BITS_AND_BYTES, None),
}

_SPELLINGS = (
    ("gptq8", ("gptq8", "w8a16", "int8wo")),
    ("awq", ("awq",)),
    ("gptq", ("gptq", "w4a16")),
    ("nvfp4", ("nvfp4", "fp4", "mxfp4", "w4a4")),
    ("fp8", ("fp8", "f8", "w8a8fp8", "e4m3", "float8")),
    ("int8", ("int8", "w8a8", "smoothquant")),
    ("nf4", ("nf4", "bnb", "bitsandbytes")),
    ("int4", ("int4", "4bit", "w4")),
    ("bf16", ("bf16", "bfloat16", "fp16", "float16", "half", "16bit", "f16", "auto", "none")),
)


def _word(precision: object) -> str | None:
    """Give a precision as a word; a bare number is one of bits."""
    if precision is None or isinstance(precision, bool):
        return None
    return f"{precision:g} bit" if isinstance(precision, int | float) else str(precision)


def _normal(precision: str | None) -> str | None:
    """Give our word for a precision, from any usual spelling; None where nothing is said."""
    if not precision:
        return None
    flat = "".join(c for c in precision.lower() if c.isalnum())
    return next((name for name, words in _SPELLINGS if any(word in flat for word in words)), flat)


def _base_of(model_id: str) -> str:
    known = {"nvidia/Llama-3.1-8B-Instruct-FP8": "meta-llama/Meta-Llama-3.1-8B"}
    return known.get(model_id, model_id.replace("meta-llama/Llama-", "meta-llama/Meta-Llama-"))


def _quantised(config: Mapping[str, Any]) -> bool:
    inner = config.get("text_config")
    return bool(config.get("quantization_config")) or (
        isinstance(inner, Mapping) and bool(inner.get("quantization_config"))
    )


def _requantised(model_id: str, config: dict[str, Any], bits: str, precision: str | None) -> Served | str:
    """Give a plain configuration the layout that checkpoints of a precision usually have."""
    added = (None, _NVIDIA_FP8) if model_id.startswith("nvidia/") and bits == "fp8" else _ADDED.get(bits)
    if added is None:
        return _profile(
            model_id, config, None, (f"the checkpoint as it is; precision {precision!r} unknown",)
        )
    told, beside = added
    said = (f"the layout that {bits} checkpoints usually have, on the plain configuration",)
    return _profile(model_id, {**config, **({"quantization_config": told} if told else {})}, beside, said)


def _profile(
    model_id: str, config: dict[str, Any], sidecar: dict[str, Any] | None, said: tuple[str, ...]
) -> Served | str:
    summary = summarize({}, source=f"hf://{model_id}", revision="0" * 40, config=config, quantization=sidecar)
    answer = read_profile(summary, guess=True)
    return answer.message if isinstance(answer, Refusal) else Served(answer, said)
