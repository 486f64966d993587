"""`stowage plan --compare A B`: two plans as `-o json` wrote them, with what differs between them.

Only the files are read: the comparison holds for clusters and versions that are not at hand any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from stowage.commands.bad_input import bad_input
from stowage.commands.yaml_documents import read_document
from stowage.planning.explain import gpus_words, parallel_words
from stowage.planning.explain.columns import columns
from stowage.planning.explain.speed import phase_words, rate_words, traffic_words
from stowage.planning.plain import from_plain
from stowage.planning.plan import Plan
from stowage.planning.speed_notes import duration, money

_GIB: Final = 2**30

_ROWS: Final[Mapping[str, Callable[[Plan], str]]] = {
    "GPUs of a replica": gpus_words,
    "parallelism": parallel_words,
    "replicas": lambda plan: str(plan.replicas),
    "precision": lambda plan: plan.precision,
    "lossy": lambda plan: plan.lossy or "nothing",
    "checkpoint": lambda plan: plan.model_source or "the spec's",
    "commit": lambda plan: plan.model_revision[:12],
    "engine": lambda plan: f"vLLM {plan.engine_version}",
    "dtype": lambda plan: plan.settings.dtype,
    "quantization": lambda plan: plan.settings.quantization or "none",
    "kv_cache_dtype": lambda plan: plan.settings.kv_cache_dtype,
    "attention": lambda plan: plan.attention_backend or "",
    "max_model_len": lambda plan: f"{plan.settings.max_model_len:,}",
    "max_num_seqs": lambda plan: f"{plan.settings.max_num_seqs:,}",
    "max_num_batched_tokens": lambda plan: f"{plan.settings.max_num_batched_tokens:,}",
    "gpu_memory_utilization": lambda plan: f"{plan.settings.gpu_memory_utilization or 0:g}",
    "weights": lambda plan: f"{plan.ledger.weights_allocated_bytes / _GIB:.2f} GiB a GPU",
    "KV cache": lambda plan: f"{plan.ledger.kv_tokens:,} tokens",
    "verdict": lambda plan: plan.ledger.verdict,
    "workload": lambda plan: "" if plan.traffic is None else traffic_words(plan.traffic),
    "TTFT": lambda plan: "" if plan.forecast is None else duration(plan.forecast.ttft_seconds.central),
    "TPOT": lambda plan: "" if plan.forecast is None else duration(plan.forecast.tpot_seconds.central),
    "tokens/s of a replica": lambda plan: (
        "" if plan.forecast is None else rate_words(plan.forecast.output_tokens_per_second)
    ),
    "prefill": lambda plan: "" if plan.forecast is None else phase_words(plan.forecast, "prefill"),
    "decode": lambda plan: "" if plan.forecast is None else phase_words(plan.forecast, "decode"),
    "cost of an hour": lambda plan: _money(plan.cost_per_hour, plan.cost_unit),
    "cost of a million tokens": lambda plan: _money(plan.cost_per_million_tokens, plan.cost_unit),
    "nodes": lambda plan: ", ".join(sorted(set(plan.placement.node_names))),
    "placement": lambda plan: plan.placement.kind,
}


def compare_lines(first: Path, second: Path, width: int | None = None) -> Iterator[str]:
    """Write what differs, and count what is the same; ends the command where a file holds no plan."""
    one, other = read_plan(first), read_plan(second)
    rows = [(name, read(one), read(other)) for name, read in _ROWS.items()]
    different = [row for row in rows if row[1] != row[2]]
    if not different:
        yield f"Both plans are the same in all {len(rows)} respects."
        return
    yield from columns([("", first.name, second.name), *different], width=width)
    if one.digest() == other.digest():
        yield "Pods of both plans are the same."
    yield f"The same in {len(rows) - len(different)} more respects."


def compare_document(first: Path, second: Path) -> dict[str, Any]:
    """Give what differs as plain values."""
    one, other = read_plan(first), read_plan(second)
    found = {name: [read(one), read(other)] for name, read in _ROWS.items()}
    return {
        "samePods": one.digest() == other.digest(),
        "different": {name: values for name, values in found.items() if values[0] != values[1]},
        "same": [name for name, values in found.items() if values[0] == values[1]],
    }


def read_plan(path: Path) -> Plan:
    """Read a plan from a file that `-o json` or `-o yaml` wrote, or from one that holds the plan alone."""
    document = read_document(str(path))
    if not isinstance(document, dict):
        bad_input(f"{path} holds no plan; give a file that stowage plan -o json wrote.")
    found = document.get("plan", document)
    if found is None:
        bad_input(f"{path} holds a refusal ({document.get('reason')}) and no plan to compare.")
    try:
        return from_plain(Plan, found)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        bad_input(f"{path} holds no plan ({error}); give a file that stowage plan -o json wrote.")


def _money(amount: float | None, unit: str) -> str:
    return "" if amount is None else money(amount, unit)
