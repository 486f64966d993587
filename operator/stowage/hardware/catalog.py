"""The catalog of known GPUs: reads catalog.toml and finds a GPU by any of the names the world uses for it.

A GPU that is not in the catalog is never guessed: callers get None and refuse with the nearest names.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any, Final

from stowage.hardware.gpu import Evidence, Gpu

_MIB: Final = 2**20
_GIB: Final = 2**30
_TERA: Final = 10**12
_GIGA: Final = 10**9
_ESTIMATES: Final = frozenset({"nvml-ratio", "nvml-ratio-large", "common-log", "oom-common"})
_INTEGER_SHARE: Final = 0.017
"""Integer operations for each 16-bit one of the matrix units where a row states none: the ratio of H100."""
_NUMBERS: Final = (
    "nvml_memory_mib",
    "cuda_total_gib",
    "bf16_tflops",
    "fp16_tflops",
    "fp8_tflops",
    "int8_tops",
    "fp4_tflops",
    "integer_tops",
    "memory_gb_per_second",
    "link_gb_per_second",
)


@dataclass(frozen=True, slots=True)
class Catalog:
    """All known GPUs, the sources of their figures, and the names that clouds use for them."""

    gpus: tuple[Gpu, ...]
    sources: Mapping[str, str]
    gke: Mapping[str, str]
    karpenter: Mapping[str, str]


@cache
def catalog() -> Catalog:
    """Give the catalog that ships with this version."""
    text = files("stowage.hardware").joinpath("catalog.toml").read_text(encoding="utf-8")
    return parse_catalog(text)


def parse_catalog(text: str) -> Catalog:
    """Read a catalog file. Raises KeyError or ValueError on a malformed one: it is part of the program."""
    data = tomllib.loads(text)
    return Catalog(tuple(_gpu(row) for row in data["gpu"]), data["sources"], data["gke"], data["karpenter"])


def find_gpu(name: str) -> Gpu | None:
    """Find a GPU by product label (with or without vendor prefix), NVML name or alias.

    Letter case, spaces, dashes and underscores do not matter. None where the catalog has no such GPU.
    """
    return _by_name().get(_normal(name))


def nearest_names(name: str, count: int = 3) -> tuple[str, ...]:
    """Names of catalog entries that look like an unknown name, the likeliest first."""
    by_name = _by_name()
    wanted = _normal(name)
    inside = [key for key in by_name if wanted and (wanted in key or key in wanted)]
    close = [*sorted(inside, key=len), *get_close_matches(wanted, by_name, n=2 * count, cutoff=0.5)]
    return tuple(dict.fromkeys(by_name[key].name for key in close))[:count]


@cache
def _by_name() -> Mapping[str, Gpu]:
    return {_normal(name): gpu for gpu in catalog().gpus for name in (gpu.name, *gpu.aliases)}


def how_to_add(name: str) -> str:
    """Say what a GPU needs to be planned with: the table to add to the catalog, with the fields it must have."""
    return (
        f'To plan with it, add to operator/stowage/hardware/catalog.toml: [[gpu]] name = "{name}", with vendor, '
        "compute_capability, nvml_memory_mib, cuda_total_gib, bf16_tflops, memory_gb_per_second, link and "
        "link_gb_per_second."
    )


def _normal(name: str) -> str:
    flat = re.sub(r"[\s_-]+", "-", name.strip().lower())
    return re.sub(r"^(?:nvidia-(?:geforce-)?|tesla-|geforce-|amd-(?:instinct-)?|instinct-|intel-)", "", flat)


def _gpu(row: Mapping[str, Any]) -> Gpu:
    value = {key: float(row[key][0]) for key in _NUMBERS if key in row}
    evidence = {key: Evidence(row[key][1], row[key][2]) for key in _NUMBERS if key in row}
    major, _, minor = str(row["compute_capability"]).partition(".")
    half = value.get("bf16_tflops", value.get("fp16_tflops"))
    if half is None:
        raise ValueError(f"catalog.toml: {row['name']} has neither bf16_tflops nor fp16_tflops")
    return Gpu(
        name=row["name"],
        aliases=tuple(row.get("aliases", ())),
        vendor=row["vendor"],
        nvml_memory_bytes=round(value["nvml_memory_mib"] * _MIB),
        cuda_total_bytes=int(value["cuda_total_gib"] * _GIB),
        cuda_total_measured=evidence["cuda_total_gib"].source not in _ESTIMATES,
        compute_capability=(int(major), int(minor)),
        bf16_flops=_flops(value.get("bf16_tflops")),
        fp16_flops=int(half * _TERA),
        fp8_flops=_flops(value.get("fp8_tflops")),
        memory_bytes_per_second=int(value["memory_gb_per_second"] * _GIGA),
        link=row["link"],
        link_bytes_per_second=int(value["link_gb_per_second"] * _GIGA),
        int8_ops=_flops(value.get("int8_tops")),
        fp4_flops=_flops(value.get("fp4_tflops")),
        integer_ops=int(value.get("integer_tops", _INTEGER_SHARE * half) * _TERA),
        evidence=evidence,
    )


def _flops(tera: float | None) -> int | None:
    return None if tera is None else int(tera * _TERA)
