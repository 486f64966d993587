"""Rotary tables of models whose sliding and full layers rotate differently (Gemma 3 and later).

`rope_parameters` then holds one object per layer type; older files write `rope_scaling` for the full layers
and `rope_local_base_freq` for the others. Each distinct embedding is one table on the device. Sources:
vLLM's `rotary_embedding/__init__.py` (0.32.0) and transformers' `Gemma3TextConfig`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stowage.model.config_fields import mapping, positive
from stowage.model.families.windows import FULL, SLIDING
from stowage.model.profile import RopeCache
from stowage.model.rope import read_rope

_FULL_BASE, _SLIDING_BASE = 1_000_000.0, 10_000.0


def rotary_tables(
    config: Mapping[str, Any], types: tuple[str, ...], head_dims: Mapping[str, int]
) -> tuple[RopeCache, ...]:
    """Give the tables that layers of these types need; types with the same embedding share one."""
    embeddings = {kind: _embedding(config, kind) for kind in (SLIDING, FULL) if kind in types}
    tables: dict[tuple[Any, ...], RopeCache] = {}
    for kind, parameters in embeddings.items():
        key = (head_dims[kind], *sorted((name, str(value)) for name, value in parameters.items()))
        tables[key] = _table(config, parameters, head_dims[kind])
    return tuple(tables.values())


def _embedding(config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    nested = dict(mapping(mapping(config, "rope_parameters"), kind))
    if kind == FULL:
        nested.update(mapping(config, "rope_scaling"))
    name, base = ("rope_theta", _FULL_BASE) if kind == FULL else ("rope_local_base_freq", _SLIDING_BASE)
    nested["rope_theta"] = positive(nested, "rope_theta", positive(config, name, base))
    nested["rope_type"] = nested.get("rope_type") or nested.pop("type", None) or "default"
    return nested


def _table(config: Mapping[str, Any], parameters: dict[str, Any], head_dim: int) -> RopeCache:
    """Give one table; a proportional embedding covers whole heads, whatever part of them it turns."""
    if parameters["rope_type"] == "proportional":
        parameters = {"rope_type": "default"}
    return read_rope({**config, "rope_parameters": parameters, "rope_scaling": None}, head_dim).cache
