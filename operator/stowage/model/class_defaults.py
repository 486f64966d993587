"""Fields that a config.json leaves out, filled as the model type's configuration class would fill them.

Published files are sparse: what equals the class's default is not written (a nested text_config least of
all). The rows of class_defaults.toml are facts about those classes; a field that is stated as null stays
null, and a model type without a row gets nothing.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def _rows() -> Mapping[str, Mapping[str, Any]]:
    text = files("stowage.model").joinpath("class_defaults.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def with_class_defaults(config: Mapping[str, Any], default_type: str | None = None) -> dict[str, Any]:
    """Give the configuration completed; `default_type` is the model type where the file names none."""
    stated = config.get("model_type")
    row = _rows().get(stated if isinstance(stated, str) else "") or _rows().get(default_type or "", {})
    return {**{name: value for name, value in row.items() if name != "source"}, **config}
