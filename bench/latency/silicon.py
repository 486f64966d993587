"""The measured rows that ship inside the wheel aiconfigurator-core, as cases; they are read there, never copied.

Repeats of one set-up are merged by the median. What a row does not say about its launch is in recipes.toml.
"""

from __future__ import annotations

import csv
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

from bench.latency.case import Case
from stowage.memory.release.engine_version import newest_engine_version

_SYSTEMS = {
    "h100_sxm": "NVIDIA-H100-80GB-HBM3",
    "h200_sxm": "NVIDIA-H200",
    "b200_sxm": "NVIDIA-B200",
    "b300_sxm": "NVIDIA-B300-SXM6-AC",
}
_SETUP = (
    *("system", "model_path", "precision", "isl", "osl", "batch_size", "tp_size", "attention_dp_size"),
    *("moe_tp_size", "moe_ep_size", "backend_version"),
)


@dataclass(frozen=True)
class Silicon:
    """Cases, and what was left out: row id and the rule that says so, and those rows as cases too."""

    cases: tuple[Case, ...]
    excluded: Mapping[str, str]
    set_aside: tuple[Case, ...] = ()


def silicon_path() -> Path:
    """Give the file inside the installed wheel; raises ModuleNotFoundError where that is not installed."""
    return Path(str(files("aiconfigurator_core").joinpath("systems", "silicon_sample.csv")))


def model_configs_path() -> Path:
    """Give the folder of model configurations inside the installed wheel."""
    return Path(str(files("aiconfigurator_core").joinpath("model_configs")))


def silicon_cases(path: Path) -> Silicon:
    """Read the aggregated vLLM rows, repeats merged."""
    groups: dict[tuple[Any, ...], list[dict[str, str]]] = defaultdict(list)
    excluded: dict[str, str] = {}
    aside: list[Case] = []
    rows = list(_rows(path))
    known = _by_setup(rows)
    for row in rows:
        if row["system"] not in _SYSTEMS:
            excluded[row["id"]] = "its system is not in the catalog"
            continue
        why = _contradicted(row, known)
        if why is not None:
            excluded[row["id"]] = why
            aside.append(_case([row]))
            continue
        groups[(*(row[name] for name in _SETUP), _concurrency(row), _origin(row))].append(row)
    return Silicon(tuple(_case(rows) for rows in groups.values()), excluded, tuple(aside))


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            if row["backend"] == "vllm" and row["mode"] == "agg":
                yield row


_Setup = tuple[str, ...]
_CLEARLY_FASTER = 0.7
_MUCH_SMALLER = 4
_SAME = ("system", "model_path", "precision", "isl", "osl", "tp_size", "attention_dp_size", "moe_ep_size")


def _by_setup(rows: list[dict[str, str]]) -> Mapping[_Setup, list[dict[str, str]]]:
    found: dict[_Setup, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        found[tuple(row[name] for name in _SAME)].append(row)
    return found


def _contradicted(row: Mapping[str, str], known: Mapping[_Setup, list[dict[str, str]]]) -> str | None:
    """Tell rows whose load cannot be the one they state: with more requests at once no token comes sooner."""
    tpot, clients = float(row["silicon_tpot_ms"]), _concurrency(row)
    for other in known[tuple(row[name] for name in _SAME)]:
        if _concurrency(other) * _MUCH_SMALLER <= clients and tpot < _CLEARLY_FASTER * float(
            other["silicon_tpot_ms"]
        ):
            return (
                "its TPOT is under 70 % of that of the same set-up with a quarter of its requests or fewer, "
                "so it did not run the load it states"
            )
    return None


def _concurrency(row: Mapping[str, str]) -> int:
    stated = re.search(r"silicon_concurrency=(\d+)", row["silicon_data_source"])
    if stated is not None:
        return int(stated[1])
    return int(row["batch_size"]) * int(row["attention_dp_size"] or 1)


def _origin(row: Mapping[str, str]) -> bool:
    return any(name in row["silicon_data_source"] for name in _table()["lengths"]["files"])


def _case(rows: list[dict[str, str]]) -> Case:
    row = rows[0]
    ranks, gpus, tensor = _layout(row)
    share = _table()["lengths"]["smallest_share"] if _origin(row) else 1.0
    recipe = _recipe(row)
    tokens, seqs = recipe.get("max_num_batched_tokens"), recipe.get("max_num_seqs")
    return Case(
        {
            "id": row["id"],
            "model_id": row["model_path"],
            "gpu_name": _SYSTEMS[row["system"]],
            "gpu_count": gpus,
            "tensor_parallel_size": tensor,
            "data_parallel_size": ranks,
            "expert_parallel": int(row["moe_ep_size"] or 1) > 1,
            "precision": row["precision"] or "bf16",
            "mean_input_len": round(int(row["isl"]) * (1 + share) / 2),
            "mean_output_len": round(int(row["osl"]) * (1 + share) / 2),
            "smallest_length_share": share,
            "max_concurrency": _concurrency(row),
            "prefix_hit_rate": _hit_rate(row),
            "engine_version": recipe.get("engine_version") or _release(row["backend_version"]),
            "kv_cache_dtype": recipe.get("kv_cache_dtype"),
            "schedules_ahead": recipe.get("schedules_ahead"),
            "gpu_memory_utilization": recipe.get("gpu_memory_utilization"),
            "max_num_seqs": _concurrency(row) if isinstance(seqs, str) else seqs,
            "max_num_batched_tokens": 2 * int(row["isl"]) if isinstance(tokens, str) else tokens,
            "ttft_mean_ms": median(float(entry["silicon_ttft_ms"]) for entry in rows),
            "tpot_mean_ms": median(float(entry["silicon_tpot_ms"]) for entry in rows),
            "repeats": len(rows),
            "nominal": (int(row["isl"]), int(row["osl"])),
        }
    )


def _hit_rate(row: Mapping[str, str]) -> float:
    """Give the share of prompt tokens that the prefix cache holds, where the client repeats its prompts."""
    repeated = _table()["repeated"]
    if not any(name in row["silicon_data_source"] for name in repeated["files"]):
        return 0.0
    requests = repeated["requests_per_client"] * _concurrency(row)
    return max(0.0, 1 - float(repeated["prompts"]) / float(requests))


def _layout(row: Mapping[str, str]) -> tuple[int, int, int]:
    """Give data-parallel ranks, GPUs and tensor-parallel ranks of each."""
    tensor = int(row["tp_size"])
    if row["attention_dp_size"]:
        ranks = int(row["attention_dp_size"]) if _recipe(row).get("attention_dp") else 1
        return ranks, tensor, tensor // ranks
    gpus = max(tensor, int(row["moe_tp_size"] or 1) * int(row["moe_ep_size"] or 1))
    return gpus // tensor, gpus, tensor


def _release(version: str) -> str:
    """Give a release; builds between two releases have other names, and were the newest there was."""
    return version if re.fullmatch(r"\d+(\.\d+)+", version) else newest_engine_version()


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / "recipes.toml").read_text(encoding="utf-8"))


def _recipe(row: Mapping[str, str]) -> Mapping[str, Any]:
    for recipe in _table()["recipe"]:
        conditions = (
            ("system", recipe.get("system")),
            ("backend_version", recipe.get("release")),
            ("precision", [recipe["precision"]] if "precision" in recipe else None),
        )
        if recipe["model"] == row["model_path"] and all(
            allowed is None or row[column] in allowed for column, allowed in conditions
        ):
            return dict(recipe)
    return {}
