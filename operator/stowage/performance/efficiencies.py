"""The few numbers that are fitted, read from their table; the same for every GPU, model and format.

What publications say about GPUs' limits, old releases and other vendors changes some of them (circumstances.toml).
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any, Final

from stowage.memory.release.engine_version import release_numbers


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
    host_request_seconds: float


PERFECT: Final = Efficiencies(1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
"""Every peak reached and nothing lost: what physics allows."""


@cache
def efficiencies() -> Efficiencies:
    """Give the table that ships with this version."""
    table = _table("efficiencies.toml")
    return Efficiencies(**{name: float(table[name]["value"]) for name in Efficiencies.__dataclass_fields__})


@cache
def efficiencies_of(gpu: str, vendor: str, engine: str, release: str) -> Efficiencies:
    """Give the table for a GPU of the catalog, its vendor, an engine ("V0" or "V1") and a release of vLLM."""
    table, told = efficiencies(), _table("circumstances.toml")
    for row in told["products"]:
        if gpu in row["gpus"]:
            matrix, attention = table.matrix * row["share"], table.attention * row["share"]
            table = replace(table, matrix=matrix, attention=attention)
    for row in told["memory"]:
        if row["vendor"] == vendor:
            table = replace(table, bandwidth=table.bandwidth * row["share"])
    numbers = release_numbers(release) or (0, 0, 0)
    for row in told["host"]:
        if row["engine"] == engine and (release_numbers(row["since"]) or numbers) <= numbers:
            step, each = row["step_seconds"], row["request_seconds"]
            table = replace(table, host_seconds=step, host_request_seconds=each)
    return table


def _table(name: str) -> dict[str, Any]:
    text = files("stowage.performance").joinpath(name).read_text(encoding="utf-8")
    return tomllib.loads(text)
