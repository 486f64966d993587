"""What is known of processors: the largest image, video or audio clip, from encoder_defaults.toml.

config.json does not say it, so it is a default of the family with its source; a deployment that limits items
by other means (`mm_processor_kwargs`) uses less.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def _table() -> dict[str, Any]:
    text = files("stowage.model").joinpath("encoder_defaults.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def encoder_default(kind: str, name: str) -> int:
    """Give a number of the row `kind`; a row or name that is missing is a bug (KeyError)."""
    return int(_table()[kind][name])
