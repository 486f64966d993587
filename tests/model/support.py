"""Profiles and summaries of published models for tests, from tests/fixtures/models."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from stowage.model.config_json import read_profile
from stowage.model.profile import AttentionProfile, ModelProfile
from stowage_runtime.contract import CheckpointSummary, summarize

MODELS = Path(__file__).parents[1] / "fixtures" / "models"

TINY: Mapping[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 256,
    "intermediate_size": 512,
    "max_position_embeddings": 2048,
    "model_type": "llama",
    "num_attention_heads": 8,
    "num_hidden_layers": 4,
    "num_key_value_heads": 4,
    "torch_dtype": "bfloat16",
    "vocab_size": 257,
}


def config_of(folder: str) -> dict[str, Any]:
    """Read the published config.json of a fixture."""
    content: dict[str, Any] = json.loads((MODELS / folder / "config.json").read_text(encoding="utf-8"))
    return content


def summary_of(config: Mapping[str, Any], headers: Mapping[str, Any] | None = None) -> CheckpointSummary:
    """Summarise a configuration, without weight files or with the given headers in one file."""
    files = {"model.safetensors": headers} if headers else {}
    return summarize(files, source="hf://test/model", revision="0" * 40, config=config)


def profile_of(config: Mapping[str, Any], **changes: Any) -> ModelProfile:
    """Read a profile that must be supported; `changes` replace fields of the configuration."""
    profile = read_profile(summary_of({**config, **changes}))
    assert isinstance(profile, ModelProfile), profile
    return profile


@cache
def published(folder: str) -> ModelProfile:
    """Read the profile of a fixture."""
    return profile_of(config_of(folder))


def attention_of(profile: ModelProfile, layer: int = 0) -> AttentionProfile:
    """Give the attention of a layer that must have one."""
    attention = profile.layers[layer].attention
    assert attention is not None
    return attention


def headers_of(profile: ModelProfile, dtype: str = "BF16") -> dict[str, tuple[str, tuple[int, ...]]]:
    """Give the headers that a complete checkpoint of this model has; `dtype` is that of plain weights."""
    found = {
        kept.name: (kept.dtype or dtype, kept.shape)
        for tensor in profile.outer_tensors
        for kept in tensor.stored
    }
    for number, layer in enumerate(profile.layers):
        for tensor in layer.tensors:
            found.update(
                {kept.name.format(number): (kept.dtype or dtype, kept.shape) for kept in tensor.stored}
            )
    return found


def write_weights(path: Path, headers: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    """Write a safetensors file whose content is all zeros, as a sparse file."""
    entries, offset = {}, 0
    for name, (dtype, size) in headers.items():
        length = 2
        for each in size:
            length *= each
        entries[name] = {"dtype": dtype, "shape": list(size), "data_offsets": [offset, offset + length]}
        offset += length
    header = json.dumps(entries).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + offset)
