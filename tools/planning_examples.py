"""The worked examples of docs/planning.md: published models, planned on imagined nodes by the planner itself.

Only config.json files are read (tests/fixtures/models); every number of the page is computed when the page is made, so
that it cannot say anything else than the program.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from stowage.api.refusal import Refusal
from stowage.api.v1alpha1 import LLMDeploymentSpec
from stowage.hardware.catalog import find_gpu
from stowage.hardware.gpu import Gpu
from stowage.hardware.inventory import Inventory, build_inventory
from stowage.hardware.node import node_facts
from stowage.model.config_json import read_profile
from stowage.model.profile import ModelProfile
from stowage.performance.levers.effect import MATTERS, Lever, LeverVerdict, percent
from stowage.planning.explain.levers import plan_levers
from stowage.planning.explain.speed import bound_words
from stowage.planning.explain.words import parallel_words
from stowage.planning.plan import Plan, PlanRequest, plan
from stowage.planning.speed_notes import duration, money
from stowage_runtime.contract import CheckpointSummary

ROOT: Final = Path(__file__).resolve().parent.parent
_MODELS: Final = ROOT / "tests" / "fixtures" / "models"
_USUAL: Final = ("L4", "L40S", "A100", "H100", "H200")


@dataclass(frozen=True, slots=True)
class Example:
    """One question: a published model, what it is asked, and the GPUs of the nodes, eight each."""

    folder: str
    prompt_tokens: int
    output_tokens: int
    concurrency: int
    gpus: tuple[str, ...] = _USUAL

    @property
    def name(self) -> str:
        """The model's name without its organisation."""
        return self.folder.partition("--")[2]

    @property
    def asked(self) -> str:
        """The workload in words."""
        return f"{self.prompt_tokens:,} in, {self.output_tokens:,} out, {self.concurrency} at once"


EXAMPLES: Final = (
    Example("meta-llama--Llama-3.1-8B-Instruct", 2000, 200, 32),
    Example("mistralai--Mistral-7B-Instruct-v0.3", 500, 150, 1, ("A100", "H100")),
    Example("microsoft--phi-4", 1000, 500, 64, ("L40S", "H100")),
    Example("Qwen--Qwen2.5-Coder-32B-Instruct-AWQ", 3000, 400, 8, ("L4", "A10G", "L40S")),
    Example("google--gemma-3-27b-it", 8000, 500, 16),
    Example("Qwen--Qwen3-30B-A3B", 2000, 500, 64),
    Example("mistralai--Mixtral-8x7B-v0.1", 1000, 300, 32, ("A100", "H100")),
    Example("meta-llama--Meta-Llama-3.1-70B", 2000, 200, 64, ("A100", "H100", "H200")),
    Example("openai--gpt-oss-120b", 4000, 1000, 64, ("H100", "H200")),
    Example("Qwen--Qwen3-32B", 20000, 300, 16, ("L40S", "H100", "H200")),
    Example("meta-llama--Llama-3.1-405B-Instruct-FP8", 2000, 400, 32, ("H100", "H200", "B200")),
    Example("deepseek-ai--DeepSeek-R1", 1000, 1000, 64, ("B200",)),
)


def examples_table() -> str:
    """Give the table of all examples, in Markdown."""
    head = (
        "model",
        "asked of one replica",
        "plan",
        "TTFT",
        "TPOT",
        "tokens/s",
        "bound",
        "per million tokens",
    )
    return markdown([head, *(_row(example) for example in EXAMPLES)])


def levers_table() -> str:
    """Give the table of what would help each example, and what would not, in Markdown."""
    head = ("model", "helps most", "then", "does not help")
    return markdown([head, *(_lever_row(example) for example in EXAMPLES)])


def blackwell_sentences() -> str:
    """Say what is known of the memory of a B200."""
    gpu = gpu_named("B200")
    measured = "measured" if gpu.cuda_total_measured else "estimated from the driver's total"
    return (
        f"A B200 has 192 GB on paper; the driver reports {gpu.nvml_memory_bytes / 2**30:.1f} GiB and CUDA sees "
        f"{gpu.cuda_total_bytes / 2**30:.1f} GiB ({measured}), which is what a plan starts from."
    )


@cache
def answered(example: Example) -> tuple[PlanRequest, Plan]:
    """Plan an example; it has to fit."""
    request = PlanRequest(_spec(example), profile_of(example.folder), 1)
    result = plan(request, nodes_with(example.gpus))
    if result.plan is None:
        raise ValueError(f"{example.folder}: {result.refusal}")
    return request, result.plan


@cache
def profile_of(folder: str) -> ModelProfile:
    """Read the profile of a published model."""
    config = json.loads((_MODELS / folder / "config.json").read_text(encoding="utf-8"))
    source = f"hf://{folder.replace('--', '/')}"
    summary = CheckpointSummary(source=source, revision="", config=config, tensors=(), total_bytes=0, files=0)
    found = read_profile(summary)
    if isinstance(found, Refusal):
        raise TypeError(f"{folder}: {found.sentence}")
    return found


def nodes_with(names: Iterable[str]) -> Inventory:
    """Imagine one node with eight GPUs of each model."""
    return build_inventory([node_facts(_node(gpu_named(name))) for name in names], [])


def gpu_named(name: str) -> Gpu:
    """Find a GPU that the catalog has to have."""
    found = find_gpu(name)
    if found is None:
        raise ValueError(f"the catalog has no {name}")
    return found


def _node(gpu: Gpu) -> dict[str, Any]:
    amounts = {"cpu": "192", "memory": "2000Gi", "pods": "110", "nvidia.com/gpu": "8"}
    labels = {
        "nvidia.com/gpu.product": gpu.name,
        "nvidia.com/gpu.count": "8",
        "nvidia.com/gpu.memory": str(gpu.nvml_memory_bytes // 2**20),
    }
    return {
        "metadata": {"name": gpu.name.lower(), "labels": labels},
        "status": {"allocatable": amounts, "capacity": amounts},
    }


def _spec(example: Example) -> LLMDeploymentSpec:
    workload = {
        "promptTokens": {"mean": example.prompt_tokens},
        "outputTokens": {"mean": example.output_tokens},
        "concurrencyPerReplica": example.concurrency,
    }
    source = f"hf://{example.folder.replace('--', '/')}"
    return LLMDeploymentSpec.model_validate({"model": {"source": source}, "workload": workload})


def _row(example: Example) -> tuple[str, ...]:
    _, found = answered(example)
    forecast = found.forecast
    if forecast is None:
        raise ValueError(f"{example.folder} has no forecast")
    million = found.cost_per_million_tokens or 0.0
    return (
        example.name,
        example.asked,
        f"{found.gpus_per_replica}× {_short(found.gpu_product)}, {parallel_words(found)}, {found.precision}",
        duration(forecast.ttft_seconds.central),
        duration(forecast.tpot_seconds.central),
        f"{forecast.output_tokens_per_second.central:,.0f}",
        bound_words(forecast),
        money(million, found.cost_unit),
    )


def _lever_row(example: Example) -> tuple[str, ...]:
    request, found = answered(example)
    levers = [lever for lever in plan_levers(request, found) if not lever.is_other_gpu]
    helping = list(_by_kind(lever for lever in levers if lever.verdict is LeverVerdict.HELPS))
    cells = [_lever_words(lever) for lever in helping[:2]] + ["–", "–"]
    useless = [lever.name for lever in levers if lever.verdict is LeverVerdict.USELESS]
    return example.name, cells[0], cells[1], ", ".join(useless) or "–"


def _by_kind(levers: Iterable[Lever]) -> Iterator[Lever]:
    kinds: dict[str, Lever] = {}
    for lever in levers:
        kinds.setdefault(lever.name.split()[0], lever)
    yield from kinds.values()


def _lever_words(lever: Lever) -> str:
    """Name what a lever brings to throughput, or to TTFT where that is all that it helps."""
    if lever.effect is None:
        return ""
    rate, ttft = lever.effect.output_tokens_per_second.share, lever.effect.ttft_seconds.share
    return f"{lever.name}: {percent(rate)}" if rate >= MATTERS else f"{lever.name}: TTFT {percent(ttft)}"


def _short(name: str | None) -> str:
    return (name or "CPU").removeprefix("NVIDIA-").partition("-80GB")[0].partition("-SXM")[0]


def markdown(rows: Sequence[tuple[str, ...]]) -> str:
    """Write rows as a table, the first one as its head."""
    head, *body = rows
    lines = [head, tuple("---" for _ in head), *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
