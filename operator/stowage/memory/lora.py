"""Adapter slots: what an engine sets aside for LoRA weights when it starts, whether or not any is loaded.

Every linear layer gets, for each slot, a matrix A of rank × inputs for each module fused in it and a matrix B of
outputs × rank. Embedding and output head get them too in some architectures and releases (lora_rules.toml), whole
on every rank. Sources: vllm/lora/layers (base_linear.py, column_parallel_linear.py, row_parallel_linear.py,
vocab_parallel_embedding.py, logits_processor.py; 0.11.0, 0.32.0). The log counts slots as weights.
"""

from __future__ import annotations

import tomllib
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

from stowage.memory.layout import RankLayout
from stowage.memory.pipeline import stage_layers
from stowage.memory.release.engine_version import EngineVersion, release_numbers
from stowage.memory.shape import LoraSettings
from stowage.memory.sharding import rank_shape
from stowage.model.profile import ModelProfile
from stowage.model.tensors import ParameterTensor

_ELEMENT_BYTES = 2
"""Adapters are kept in the model's 16-bit dtype (`lora_dtype: auto`)."""


@lru_cache(maxsize=512)
def lora_bytes(profile: ModelProfile, layout: RankLayout, lora: LoraSettings, version: EngineVersion) -> int:
    """Give the bytes of all adapter slots on a rank."""
    here = stage_layers(profile.num_layers, layout.pipeline_parallel_size)[layout.stage]
    rank, slots = lora.max_lora_rank, lora.max_loras
    elements = rank * sum(
        _elements_per_rank(tensor, layout) for number in here for tensor in profile.layers[number].tensors
    )
    if not _wraps_embeddings(profile.architecture, version):
        return elements * slots * _ELEMENT_BYTES
    extra, hidden = _extra_tokens(version), profile.hidden_size
    if layout.is_first:
        elements += rank * (profile.vocab_size + extra + hidden) + extra * hidden
    if layout.is_last:
        elements += rank * (profile.padded_vocab_size + extra + hidden) + extra * hidden
    copies = (1 if profile.tie_word_embeddings else layout.is_first + layout.is_last) if extra else 0
    added = copies * extra * hidden // layout.tensor_parallel_size
    return (elements + added) * slots * _ELEMENT_BYTES


def _elements_per_rank(tensor: ParameterTensor, layout: RankLayout) -> int:
    if tensor.linear is None or tensor.linear.role != "linear" or len(tensor.shape) != 2:
        return 0
    rows, columns = rank_shape(tensor, layout)
    return len(tensor.linear.out_sizes) * columns + rows


@lru_cache(maxsize=256)
def _wraps_embeddings(architecture: str, version: EngineVersion) -> bool:
    rows = _table()["embeddings"].items()
    return any(architecture in names and _reached(since, version) for since, names in rows)


def _extra_tokens(version: EngineVersion) -> int:
    row = _table()["extra_vocabulary"]
    return 0 if _reached(row["until"], version) else int(row["tokens"])


def _reached(since: str, version: EngineVersion) -> bool:
    wanted, first = release_numbers(version.version), release_numbers(since)
    return wanted is None or first is None or wanted >= first


@cache
def _table() -> dict[str, Any]:
    text = files("stowage.memory").joinpath("lora_rules.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)
