"""Published config.json files of real models, served as repositories without weights.

Why: plans for real models need their real architecture; the wheel `aiconfigurator-core` carries more than a
hundred config.json files as published, so no network is needed.
It must never make up a configuration: what the wheel does not have is not found.
"""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from e2e.hub.repository import Snapshot, snapshot_of_contents

RENAMED = {
    "meta-llama/Llama-3.1-8B": "meta-llama/Meta-Llama-3.1-8B",
    "meta-llama/Llama-3.1-70B": "meta-llama/Meta-Llama-3.1-70B",
    "meta-llama/Llama-3.1-405B": "meta-llama/Meta-Llama-3.1-405B",
}
"""Repositories that the Hub has under a newer name: newer name → name in the wheel."""

INSTRUCT_END_TOKENS = [128001, 128008, 128009]
"""The published Llama 3.1 Instruct configurations differ from the base ones in `eos_token_id` only."""

_SUFFIXES = {"_hf_quant_config.json": "hf_quant_config.json", "_config.json": "config.json"}


def published(repo_id: str) -> Snapshot | None:
    """Return the repository `repo_id` with its published configuration files; None if the wheel has none."""
    base_id = repo_id.removesuffix("-Instruct")
    base_id = RENAMED.get(base_id, base_id)
    catalog = _catalog()
    if entry := catalog.get(RENAMED.get(repo_id, repo_id)):
        return _snapshot(tuple(sorted(entry.items())))
    if base_id in RENAMED.values() and repo_id.endswith("-Instruct") and (entry := catalog.get(base_id)):
        return _instruct(entry["config.json"])
    return None


def repository_ids() -> list[str]:
    """Ids of all repositories that the wheel has a configuration of."""
    return sorted(_catalog())


@lru_cache(maxsize=1)
def _catalog() -> dict[str, dict[str, Traversable]]:
    catalog: dict[str, dict[str, Traversable]] = {}
    for resource in files("aiconfigurator_core").joinpath("model_configs").iterdir():
        for suffix, name in _SUFFIXES.items():
            if resource.name.endswith(suffix):
                organisation, _, model = resource.name.removesuffix(suffix).partition("--")
                catalog.setdefault(f"{organisation}/{model}", {})[name] = resource
                break
    return catalog


@lru_cache(maxsize=256)
def _snapshot(entry: tuple[tuple[str, Traversable], ...]) -> Snapshot:
    return snapshot_of_contents({name: resource.read_bytes() for name, resource in entry})


def _instruct(base: Traversable) -> Snapshot:
    config = json.loads(base.read_text(encoding="utf-8")) | {"eos_token_id": INSTRUCT_END_TOKENS}
    return snapshot_of_contents({"config.json": (json.dumps(config, indent=2) + "\n").encode()})
