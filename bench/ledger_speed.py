"""How long one memory ledger takes once a model's profile is read, over architectures and layouts.

A planner asks thousands of different questions about one profile and one layout. So the context length, the batch
limits and the utilisation differ in every question that is timed; each layout is asked about before the clock
starts, since what depends on model and layout alone is worked out once. Times are of the processor; what else runs
on the machine still counts where cores share their units, and so the time of a million additions is printed too.
"refused" is a layout that the engine does not accept.

    python bench/ledger_speed.py [--models tests/fixtures/models] [--questions 60] [--repeat 7] [--json FILE] [NAME …]
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from stowage.api.refusal import Refusal
from stowage.memory.budget import ledger
from stowage.memory.device import DeviceMemory
from stowage.memory.release.engine_version import EngineVersion, engine_version, newest_engine_version
from stowage.memory.shape import EngineShape
from stowage.model.config_json import read_profile
from stowage.model.profile import ModelProfile
from stowage_runtime.contract import CheckpointSummary

_MILLI: Final = 1e3
_GPU: Final = DeviceMemory("NVIDIA-H200", int(139.8 * 2**30), (9, 0))
_SIZES: Final = ((1, 1), (8, 1), (1, 2))
_KV_DTYPES: Final = ("auto", "fp8")
# One of each kind of memory: dense, windows, chunks, experts, latent vectors, recurrent states, towers, packed weights.
_DEFAULT: Final = (
    "meta-llama--Llama-3.1-8B-Instruct",
    "meta-llama--Meta-Llama-3.1-70B",
    "Qwen--Qwen3-32B",
    "Qwen--Qwen3-30B-A3B",
    "Qwen--Qwen2.5-VL-7B-Instruct",
    "Qwen--Qwen3.5-35B-A3B",
    "mistralai--Mixtral-8x7B-v0.1",
    "google--gemma-3-27b-it",
    "google--gemma-4-26B-A4B-it",
    "openai--gpt-oss-120b",
    "deepseek-ai--DeepSeek-R1",
    "deepseek-ai--DeepSeek-V3.2",
    "deepseek-ai--DeepSeek-V4-Flash",
    "meta-llama--Llama-4-Scout-17B-16E-Instruct-text",
    "nvidia--NVIDIA-Nemotron-3-Nano-30B-A3B-BF16",
    "ai21labs--AI21-Jamba-1.5-Mini",
    "hugging-quants--Meta-Llama-3.1-405B-Instruct-AWQ-INT4",
)


@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes that stay the same over the questions of one row."""

    tensor: int
    pipeline: int
    kv_dtype: str

    def __str__(self) -> str:
        stages = f" pp{self.pipeline}" if self.pipeline > 1 else ""
        return f"tp{self.tensor}{stages}, KV {'as weights' if self.kv_dtype == 'auto' else self.kv_dtype}"


@dataclass(frozen=True, slots=True)
class Row:
    """One model and layout: milliseconds of one ledger, or None where the layout is refused."""

    model: str
    layout: Layout
    median_ms: float | None
    least_ms: float | None


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="folders of --models; default: one of each kind"
    )
    parser.add_argument("--models", type=Path, default=Path("tests/fixtures/models"))
    parser.add_argument("--questions", type=int, default=60, help="different questions in one timed run")
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    rows = [row for name in options.names or _DEFAULT for row in measure(options, name)]
    show(rows, f"one ledger, median of {options.repeat} × {options.questions} on {platform.python_version()}")
    if options.json:
        figures = [
            {
                "model": row.model,
                "layout": str(row.layout),
                "median_ms": row.median_ms,
                "least_ms": row.least_ms,
            }
            for row in rows
        ]
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def measure(options: argparse.Namespace, name: str) -> Iterator[Row]:
    """Time every layout of one model."""
    profile, version = _profile(options.models / name), engine_version(newest_engine_version())
    if isinstance(version, Refusal):
        raise SystemExit(version.sentence)
    for tensor, pipeline in _SIZES:
        for kv_dtype in _KV_DTYPES:
            layout = Layout(tensor, pipeline, kv_dtype)
            yield _timed(profile, layout, version, options)


def questions(layout: Layout) -> Iterator[EngineShape]:
    """Give shapes of one layout, no two alike in what a planner varies."""
    number = 0
    while True:
        yield EngineShape(
            tensor_parallel_size=layout.tensor,
            pipeline_parallel_size=layout.pipeline,
            dtype="auto",
            kv_cache_dtype=layout.kv_dtype,
            gpu_memory_utilization=0.85 + number % 97 / 1000,
            max_model_len=2048 + number * 7 % 6000,
            max_num_seqs=1 + number * 13 % 1000,
            max_num_batched_tokens=1024 + number * 8 % 15000,
            enforce_eager=False,
            kv_cache_memory_bytes=None,
        )
        number += 1


def show(rows: list[Row], title: str) -> None:
    """Print one line for each model, and the worst figures below."""
    layouts = list(dict.fromkeys(row.layout for row in rows))
    table = Table("model", *(f"{layout}\nms" for layout in layouts), title=title)
    for model in dict.fromkeys(row.model for row in rows):
        found = {row.layout: row.median_ms for row in rows if row.model == model}
        cells = (found[layout] for layout in layouts)
        table.add_row(model, *("refused" if cell is None else f"{cell:.3f}" for cell in cells))
    known = [row.median_ms for row in rows if row.median_ms is not None]
    Console(width=140).print(table)
    if known:
        print(f"{len(known)} layouts: median {statistics.median(known):.3f} ms, largest {max(known):.3f} ms")
    print(f"a million additions take {additions_ms():.0f} ms here now")


def additions_ms() -> float:
    """Give the least time of a million additions: how busy this machine is."""
    figures = []
    for _ in range(5):
        start, total = time.process_time(), 0
        for number in range(10**6):
            total += number
        figures.append((time.process_time() - start) * _MILLI)
    return min(figures)


def _timed(profile: ModelProfile, layout: Layout, version: EngineVersion, options: argparse.Namespace) -> Row:
    shapes, count = questions(layout), options.questions
    if isinstance(ledger(profile, next(shapes), _GPU, version), Refusal):
        return Row(profile.source, layout, None, None)
    figures = []
    for _ in range(options.repeat):
        asked = [next(shapes) for _ in range(count)]
        gc.collect()
        start = time.process_time()
        for shape in asked:
            ledger(profile, shape, _GPU, version)
        figures.append((time.process_time() - start) * _MILLI / count)
    return Row(profile.source, layout, statistics.median(figures), min(figures))


def _profile(folder: Path) -> ModelProfile:
    summary = CheckpointSummary(
        source=folder.name,
        revision="0" * 40,
        config=json.loads((folder / "config.json").read_text(encoding="utf-8")),
        tensors=(),
        total_bytes=0,
        files=0,
    )
    profile = read_profile(summary)
    if isinstance(profile, Refusal):
        raise SystemExit(f"{folder.name}: {profile.sentence}")
    return profile


if __name__ == "__main__":
    raise SystemExit(main())
