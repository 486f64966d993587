"""`stowage plan --what-if`: the same question with something changed, next to the answer as asked.

A change is written `gpus=+8xH100` or `concurrency=64,kv-cache-dtype=fp8` for two at once. Every change starts from the
question as asked, never from another change, and is answered by the same `plan()`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.api.support import unsupported_fields
from stowage.api.v1alpha1 import LLMDeploymentSpec, parse_spec
from stowage.commands.changes import COUNT, WORD, Reader, read_changes
from stowage.hardware.catalog import find_gpu, nearest_names
from stowage.hardware.gpu import Gpu
from stowage.hardware.inventory import Inventory
from stowage.hardware.node import node_facts
from stowage.hardware.room import NodeRoom
from stowage.planning.explain import plan_words, summary
from stowage.planning.explain.columns import columns
from stowage.planning.explain.lines import bullet
from stowage.planning.plan import Plan, PlanRequest, PlanResult, plan
from stowage.planning.speed_notes import duration, money

_NUMBERS: Final = frozenset({2, 3, 4, 5, 6})
"""Columns of the answers that end together."""

_GPUS: Final = re.compile(r"(\+?)(\d{1,4})x(.+)")
_PER_NODE: Final = 8
_RESOURCES: Final[Mapping[str, str]] = {"NVIDIA": "nvidia.com/gpu", "AMD": "amd.com/gpu"}
# Host size of the nodes that are imagined: enough for any model, as eight-GPU servers have it.
_HOST: Final[Mapping[str, str]] = {"cpu": "192", "memory": "2000Gi", "pods": "110"}

_PATHS: Final[Mapping[str, tuple[str, ...]]] = {
    "concurrency": ("workload", "concurrencyPerReplica"),
    "requests_per_second": ("workload", "requestsPerSecond"),
    "context": ("workload", "maxModelLen"),
    "max_model_len": ("workload", "maxModelLen"),
    "prompt_tokens": ("workload", "promptTokens", "mean"),
    "output_tokens": ("workload", "outputTokens", "mean"),
    "kv_cache_dtype": ("precision", "kvCache"),
    "tensor_parallel_size": ("parallelism", "tensor"),
    "pipeline_parallel_size": ("parallelism", "pipeline"),
    "data_parallel_size": ("parallelism", "data"),
    "max_num_seqs": ("engine", "maxNumSeqs"),
    "max_num_batched_tokens": ("engine", "maxNumBatchedTokens"),
    "ttft": ("objectives", "ttft"),
    "tpot": ("objectives", "tpot"),
    "priority": ("objectives", "priority"),
}
_EXCLUDES: Final[Mapping[str, str]] = {
    "concurrency": "requestsPerSecond",
    "requests_per_second": "concurrencyPerReplica",
}


@dataclass(frozen=True, slots=True)
class GpuChange:
    """So many GPUs of one model, beside those that there are or in their place."""

    gpu: Gpu
    count: int
    added: bool


@dataclass(frozen=True, slots=True)
class PlanWhatIf:
    """One change as written, and the result with it; `unserved` says what of it cannot be served yet."""

    words: str
    result: PlanResult
    unserved: tuple[str, ...] = ()


def answer_what_ifs(
    request: PlanRequest, inventory: Inventory, changes: Sequence[str]
) -> tuple[PlanWhatIf, ...] | Refusal:
    """Answer all changes, or refuse the first that is not understood."""
    found = []
    for words in changes:
        settings = read_changes(words, READERS)
        changed = settings if isinstance(settings, Refusal) else _changed(request, inventory, settings)
        if isinstance(changed, Refusal):
            return replace(changed, message=f"--what-if {words}: {changed.message}")
        unserved = tuple(each.message for each in unsupported_fields(changed[0].spec))
        found.append(PlanWhatIf(words, plan(*changed), unserved))
    return tuple(found)


def what_if_lines(
    asked: PlanResult, answers: Sequence[PlanWhatIf], width: int | None = None
) -> Iterator[str]:
    """Write one line for the question as asked and one for each change."""
    results = [("as asked", asked), *((each.words, each.result) for each in answers)]
    units = {result.plan.cost_unit for _, result in results if result.plan is not None}
    common = units.pop() if len(units) == 1 else ""
    costs = (f"{common}/hour", f"{common}/1M tokens") if common else ("per hour", "per 1M tokens")
    rows: list[tuple[str, ...]] = [("what if", "plan", "TTFT", "TPOT", "tokens/s", *costs)]
    refused: list[str] = []
    for words, result in results:
        change = words.replace(",", ", ")
        if result.plan is None:
            reason = result.refusal.reason.value if result.refusal else ""
            rows.append((change, f"refused: {reason}", "", "", "", "", ""))
            refused.append(f"{words}: {summary(result)}")
        else:
            rows.append((change, *_cells(result.plan, common)))
    yield from columns(rows, _NUMBERS, width)
    unserved = (f"{each.words}: {sentence}" for each in answers for sentence in each.unserved)
    for sentence in (*refused, *unserved):
        yield from bullet(sentence, width)


def what_if_document(answer: PlanWhatIf) -> dict[str, Any]:
    """Give the answer to a change as plain values."""
    found, refusal = answer.result.plan, answer.result.refusal
    document: dict[str, Any] = {
        "whatIf": answer.words,
        "fits": found is not None,
        "summary": summary(answer.result),
        "reason": None if refusal is None else refusal.reason.value,
        "unserved": list(answer.unserved),
    }
    if found is None:
        return document
    document |= {
        "gpus": f"{found.gpus_per_replica}x {found.gpu_product}" if found.gpu_product else "CPU",
        "replicas": found.replicas,
        "kvTokens": found.ledger.kv_tokens,
        "costPerHour": found.cost_per_hour,
        "costPerMillionTokens": found.cost_per_million_tokens,
        "costUnit": found.cost_unit,
    }
    if found.forecast is not None:
        document |= {
            "ttftSeconds": found.forecast.ttft_seconds.central,
            "tpotSeconds": found.forecast.tpot_seconds.central,
            "outputTokensPerSecond": found.forecast.output_tokens_per_second.central,
        }
    return document


def _cells(found: Plan, common: str) -> tuple[str, ...]:
    """Write a plan's numbers, of all its replicas; costs without their unit where all have it in common."""

    def cost(amount: float | None) -> str:
        words = "" if amount is None else money(amount, found.cost_unit)
        return words.removesuffix(f" {common}") if common else words

    replicas = f"{found.replicas} replicas of " if found.replicas > 1 else ""
    forecast = found.forecast
    speed = ("", "", "")
    if forecast is not None:
        seconds = (forecast.ttft_seconds.central, forecast.tpot_seconds.central)
        rate = forecast.output_tokens_per_second.central * found.replicas
        speed = (duration(seconds[0]), duration(seconds[1]), f"{rate:,.0f}")
    costs = (cost(found.cost_per_hour), cost(found.cost_per_million_tokens))
    return (f"{replicas}{plan_words(found)}", *speed, *costs)


def _read_gpus(text: str) -> GpuChange | Refusal:
    """Read `+8xH100` (beside what there is) or `8xH100` (in its place). Raises ValueError on another form."""
    match = _GPUS.fullmatch(text.strip())
    if match is None or int(match[2]) == 0:
        raise ValueError(text)
    gpu = find_gpu(match[3])
    if gpu is None:
        near = ", ".join(nearest_names(match[3]))
        message = f"{match[3]} is not a GPU that this version knows."
        return Refusal(Reason.UNKNOWN_GPU, message, f"Did you mean {near}?" if near else "")
    return GpuChange(gpu, int(match[2]), match[1] == "+")


_GPUS_READER: Final = Reader(_read_gpus, "a number of GPUs, as +8xH100 (beside what there is) or 8xH100")
_DURATION: Final = Reader(str, "a duration")
_RATE: Final = Reader(float, "a number")
_OTHERS: Final[Mapping[str, Reader]] = {
    "requests_per_second": _RATE,
    "kv_cache_dtype": WORD,
    "ttft": _DURATION,
    "tpot": _DURATION,
    "priority": WORD,
}
READERS: Final[Mapping[str, Reader]] = {
    "gpus": _GPUS_READER,
    "replicas": COUNT,
    **{name: _OTHERS.get(name, COUNT) for name in _PATHS},
}


def _changed(
    request: PlanRequest, inventory: Inventory, settings: Mapping[str, Any]
) -> tuple[PlanRequest, Inventory] | Refusal:
    gpus = settings.get("gpus")
    if isinstance(gpus, Refusal):
        return gpus
    replicas = settings.get("replicas", request.replicas)
    if not 1 <= replicas <= 1000:
        return Refusal(Reason.INVALID_SPEC, f"replicas is {replicas}; it must be between 1 and 1000.")
    spec = _spec(request.spec, {name: value for name, value in settings.items() if name in _PATHS})
    if isinstance(spec, Refusal):
        return spec
    room = inventory if gpus is None else _room(inventory, gpus)
    return replace(request, spec=spec, replicas=replicas), room


def _spec(spec: LLMDeploymentSpec, settings: Mapping[str, Any]) -> LLMDeploymentSpec | Refusal:
    document = copy.deepcopy(spec.to_dict())
    for name, value in settings.items():
        *parents, last = _PATHS[name]
        place = document
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
        place.pop(_EXCLUDES.get(name, ""), None)
        if last == "mean" and place.get("p95", value) < value:
            del place["p95"]
    return parse_spec(document)


def _room(inventory: Inventory, change: GpuChange) -> Inventory:
    """Add imagined nodes of up to eight GPUs, or put them in the place of all nodes that have GPUs."""
    sizes = [_PER_NODE] * (change.count // _PER_NODE)
    sizes += [change.count % _PER_NODE] if change.count % _PER_NODE else []
    rooms = []
    for number, size in enumerate(sizes):
        facts = node_facts(_node(f"what-if-{number}", change.gpu, size))
        rooms.append(NodeRoom(facts, facts.allocatable))
    kept = [node for node in inventory.nodes if change.added or not node.facts.is_gpu_node]
    return replace(inventory, nodes=(*kept, *rooms))


def _node(name: str, gpu: Gpu, size: int) -> dict[str, Any]:
    resource = _RESOURCES.get(gpu.vendor, "nvidia.com/gpu")
    amounts = {**_HOST, resource: str(size)}
    labels = {
        "kubernetes.io/hostname": name,
        "nvidia.com/gpu.product": gpu.name,
        "nvidia.com/gpu.count": str(size),
        "nvidia.com/gpu.memory": str(gpu.nvml_memory_bytes // 2**20),
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "status": {"allocatable": amounts, "capacity": amounts},
    }
