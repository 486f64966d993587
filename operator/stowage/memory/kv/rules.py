"""The rules of one release's KV cache manager: a lookup in a table of sourced changes.

Grouping, the check at start and the way capacity is printed changed in nearly every release. This file only
says which rule holds in which release; the rules themselves are in kv/layers.py, kv/groups.py and kv/pool.py.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

from stowage.memory.release.engine_version import EngineVersion, release_numbers


@dataclass(frozen=True, slots=True)
class KvRules:
    """What kv/rules.toml says of a release; the table explains each field and its values."""

    grouping: str
    stride_groups: bool
    whole_model_groups: bool
    same_type_group: bool
    unify_pages: str
    even_kinds_below: float
    attention_only: bool
    chunks: str
    windows_keep_all: bool
    value_heads: bool
    window_block: str
    concurrency: str
    check: str
    check_whole_model: bool
    context_parallel: bool
    hybrid_step: str
    latent_hybrid_step: int
    hybrid_prefix_caching: bool
    state_blocks: str
    prefill_checkpoint: bool
    retains_lookahead: bool
    cpu_states_in_32_bits: bool
    cross_tokens: str
    latent_as_heads: int


@lru_cache(maxsize=256)
def kv_rules(version: EngineVersion) -> KvRules:
    """Give the rules of a release; the V0 engine has the oldest ones in whatever release it runs."""
    table = _table()
    state = dict(table["initial"])
    wanted = release_numbers(version.version)
    for change in table["change"]:
        since = release_numbers(change["since"])
        if version.engine != "V0" and wanted is not None and since is not None and since <= wanted:
            state.update(change["set"])
    state["latent_as_heads"] = version.latent_as_heads
    return KvRules(**{name: state[name] for name in KvRules.__dataclass_fields__})


@cache
def _table() -> dict[str, Any]:
    text = files("stowage.memory.kv").joinpath("rules.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)
