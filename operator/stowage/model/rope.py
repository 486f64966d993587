"""Rotary position embedding: which table it needs on the device, and how far it lets the context reach.

The table of cosines and sines is a buffer that counts as weight memory (33.5 MB for Llama-3.1-8B). Its rows
and the derived context limit depend on the scaling kind. Rules as in vLLM 0.32 (`layers/rotary_embedding`,
`config/model.py::_get_and_verify_max_len`); a kind that is not listed is refused, never treated as plain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from stowage.model.config_fields import BadField, UnsupportedFeature, count, mapping, positive, word
from stowage.model.profile import RopeCache

_LIMIT_FIELDS: Final = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
_PHI3_ORIGINAL_LENGTH: Final = 4096
"""Class default of original_max_position_embeddings for model_type phi3 (transformers, Phi3Config)."""

_UNLIMITED: Final = 2**31 - 1
"""Longest context of a model that states none: what a 32-bit position can count."""

_LENGTH_WITHOUT_LIMIT: Final = 2048
"""Context that the engine takes where config.json states none (config/model.py)."""


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary embedding of a model: its table, the longest context it allows, and the one taken by default."""

    cache: RopeCache
    max_model_len: int
    default_max_model_len: int
    note: str | None = None


def read_rope(config: Mapping[str, Any], head_dim: int, *, mrope_factor: int = 4) -> Rope:
    """Derive table and context limits; raises BadField for values that are not understood.

    A multimodal embedding (`mrope_section`) has `mrope_factor` times the rows, since positions in a video run
    ahead of its tokens; families whose positions never do pass 1 (Qwen3-VL and later).
    """
    parameters = mapping(config, "rope_parameters") or mapping(config, "rope_scaling")
    rope = _scaled_rope(config, parameters, head_dim)
    if "mrope_section" not in parameters:
        return rope
    table = replace(rope.cache, rows=rope.cache.rows * mrope_factor, multimodal=mrope_factor == 1)
    return replace(rope, cache=table)


def _scaled_rope(config: Mapping[str, Any], parameters: Mapping[str, Any], head_dim: int) -> Rope:
    positions = count(config, "max_position_embeddings")
    limit = _declared_limit(config)
    factor_of_head = positive(
        parameters, "partial_rotary_factor", positive(config, "partial_rotary_factor", 1.0)
    )
    rotary_dim = int(head_dim * factor_of_head)
    if not 0 < rotary_dim <= head_dim:
        raise BadField(f"config.json says partial_rotary_factor: {factor_of_head:g}; it must be at most 1.")
    kind = _kind(config, parameters)
    if kind in ("default", "llama3"):
        return Rope(RopeCache(positions, rotary_dim), limit, limit)
    if kind == "longrope":
        original = _original_length(config, parameters, positions)
        return Rope(RopeCache(original + positions, rotary_dim), limit, min(original, limit))
    if kind == "yarn":
        return _yarn(parameters, _original_length(config, parameters, positions), limit, rotary_dim)
    factor = positive(parameters, "factor", 1.0 if "alpha" in parameters else None)
    rows = int(positions * factor) if kind == "linear" else positions
    return Rope(RopeCache(rows, rotary_dim), int(limit * factor), int(limit * factor))


def no_rope(config: Mapping[str, Any]) -> Rope:
    """Give the context limits of a model without a rotary table (Mamba, Jamba, Nemotron-H).

    Where no length is stated at all the engine takes any that is asked for, and 2048 when none is.
    """
    stated = any(config.get(name) is not None for name in (*_LIMIT_FIELDS, "model_max_length"))
    nothing = RopeCache(0, 0)
    if not stated:
        return Rope(nothing, _UNLIMITED, _LENGTH_WITHOUT_LIMIT)
    limit = _declared_limit(config)
    return Rope(nothing, limit, limit)


def _kind(config: Mapping[str, Any], parameters: Mapping[str, Any]) -> str:
    kind = word(parameters, "rope_type") or word(parameters, "type") or "default"
    if kind == "su" or (kind == "yarn" and config.get("model_type") == "phi3"):
        kind = "longrope"
    if kind == "mrope":
        kind = "default"
    if kind not in ("default", "llama3", "linear", "dynamic", "yarn", "longrope"):
        raise UnsupportedFeature(
            f"config.json uses a rotary embedding of type {kind!r}, which is not supported."
        )
    return kind


def _original_length(config: Mapping[str, Any], parameters: Mapping[str, Any], positions: int) -> int:
    default = _PHI3_ORIGINAL_LENGTH if config.get("model_type") == "phi3" else positions
    inner = count(parameters, "original_max_position_embeddings", default)
    return count(config, "original_max_position_embeddings", inner)


def _yarn(parameters: Mapping[str, Any], original: int, limit: int, rotary_dim: int) -> Rope:
    rows = int(original * positive(parameters, "factor"))
    note = None
    if rows != limit:
        note = (
            f"YaRN stretches {original:,} positions to {rows:,}, but the engine takes the limit of {limit:,} "
            "tokens from max_position_embeddings."
        )
    return Rope(RopeCache(rows, rotary_dim), limit, limit, note)


def _declared_limit(config: Mapping[str, Any]) -> int:
    """Take the smallest stated length; `model_max_length` overrides all others, as in the engine."""
    stated = [count(config, name) for name in _LIMIT_FIELDS if config.get(name) is not None]
    return count(config, "model_max_length", min(stated, default=None))
