"""Reading single values out of a config.json that somebody else wrote.

Every reader returns a value of the asked type or raises `BadField`, whose text is a whole sentence for
people: the field, its value, and what it should be. The exception never leaves this package; `read_profile`
turns it into a refusal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


class BadField(ValueError):
    """A field of config.json that is missing or has a value that cannot be used."""


class UnsupportedFeature(BadField):
    """A feature of a model that is valid but that this version does not size."""


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:59] + "…"


def count(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """Read a whole number of at least 1; null counts as absent."""
    value = config.get(name)
    if value is None:
        if default is None:
            raise BadField(f"config.json has no {name}, which sizing needs.")
        return default
    if type(value) is not int or value < 1:
        raise BadField(f"config.json says {name}: {_shown(value)}; it must be a whole number of at least 1.")
    return value


def flag(config: Mapping[str, Any], name: str, default: bool = False) -> bool:
    """Read true or false; null counts as absent."""
    value = config.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise BadField(f"config.json says {name}: {_shown(value)}; it must be true or false.")
    return value


def positive(config: Mapping[str, Any], name: str, default: float | None = None) -> float:
    """Read a finite number above zero; null counts as absent."""
    value = config.get(name)
    if value is None:
        if default is None:
            raise BadField(f"config.json has no {name}, which this kind of rotary embedding needs.")
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise BadField(f"config.json says {name}: {_shown(value)}; it must be a number above 0.")
    return float(value)


def word(config: Mapping[str, Any], name: str) -> str | None:
    """Read a string; null counts as absent and gives None."""
    value = config.get(name)
    if value is None or isinstance(value, str):
        return value
    raise BadField(f"config.json says {name}: {_shown(value)}; it must be a string.")


def mapping(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Read an object; null counts as absent and gives an empty one."""
    value = config.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise BadField(f"config.json says {name}: {_shown(value)}; it must be an object.")
    return value


def refuse_features(config: Mapping[str, Any], *names: str) -> None:
    """Raise UnsupportedFeature for features that change memory or meaning and that a family does not model."""
    found = next((name for name in names if config.get(name)), None)
    if config.get("is_causal") is False:
        found = "bidirectional attention (is_causal: false)"
    activation = word(config, "hidden_act")
    if activation not in (None, "silu"):
        found = f"hidden_act {activation}"
    if found is not None:
        raise UnsupportedFeature(f"A model of this family with {found} is not supported by this version.")


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give the part that describes the language model, where config.json nests it (vLLM's get_text_config)."""
    for name in ("text_config", "llm_config", "language_config"):
        if isinstance(config.get(name), Mapping):
            return mapping(config, name)
    thinker = config.get("thinker_config")
    return text_config(thinker) if isinstance(thinker, Mapping) else config
