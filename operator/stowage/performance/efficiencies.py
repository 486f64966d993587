"""The few numbers that are fitted, read from their table; the same for every GPU, model and format."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final


@dataclass(frozen=True, slots=True)
class Efficiencies:
    """Shares of peaks, and seconds; what each means is in `efficiencies.toml`."""

    bandwidth: float
    matrix: float
    attention: float
    kernel_seconds: float
    all_reduce_seconds: float
    link: float
    host_seconds: float
    unpack_operations: float
    request_seconds: float
    launch_seconds: float
    grouped: float


PERFECT: Final = Efficiencies(1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
"""Every peak reached and nothing lost: what physics allows."""


@cache
def efficiencies() -> Efficiencies:
    """Give the table that ships with this version."""
    text = files("stowage.performance").joinpath("efficiencies.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    return Efficiencies(**{name: float(table[name]["value"]) for name in Efficiencies.__dataclass_fields__})
