"""Which files of a model repository or folder the engine needs, and which of them hold the weights.

The fetch downloads exactly these and the inspection sums up exactly these, so that the plan and the disk
agree. Pure: names go in, names come out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

INDEX_NAME = "model.safetensors.index.json"
CONFIG_NAME = "config.json"
QUANTIZATION_NAME = "hf_quant_config.json"

_WEIGHTS_SUFFIX = ".safetensors"
# Mistral publishes the same weights a second time in its own layout.
_SECOND_COPY_PREFIX = "consolidated"
_SMALL_SUFFIXES = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".py")


def weight_files(names: Iterable[str], index: Mapping[str, Any] | None) -> list[str]:
    """Return the safetensors files to load: those of the index, else all at the top but second copies."""
    weights = sorted(name for name in names if name.endswith(_WEIGHTS_SUFFIX))
    if index is not None:
        listed = index.get("weight_map")
        if isinstance(listed, dict):
            return sorted(set(weights) & {name for name in listed.values() if isinstance(name, str)})
    at_top = [name for name in weights if "/" not in name] or weights
    return [name for name in at_top if not name.startswith(_SECOND_COPY_PREFIX)] or at_top


def needed_files(names: Iterable[str], index: Mapping[str, Any] | None) -> list[str]:
    """Return everything the engine reads: weights, configuration, tokenizer, code."""
    names = list(names)
    small = {name for name in names if "/" not in name and name.endswith(_SMALL_SUFFIXES)}
    templates = {name for name in names if name.startswith("additional_chat_templates/")}
    return sorted({*weight_files(names, index), *small, *templates})


def missing_weights(names: Iterable[str], index: Mapping[str, Any] | None) -> list[str]:
    """Return the weight files that the index names and that are not there."""
    listed = index.get("weight_map") if index is not None else None
    wanted = (
        {name for name in listed.values() if isinstance(name, str)} if isinstance(listed, dict) else set()
    )
    return sorted(wanted - set(names))
