"""The ledger of one shape on one device: the one entrance to this layer.

A shape that the engine would not accept at all gives a refusal; any other gives the ledger of its tightest
rank, whose verdict says whether it fits. The budget equations are in kv/budget.py, the terms in rank.py,
the checks in margins.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from stowage.api.refusal import Refusal
from stowage.memory.band import Band
from stowage.memory.basis import Basis
from stowage.memory.calibration import UNCALIBRATED, Calibration
from stowage.memory.constraints import check_layout, check_limits, check_release
from stowage.memory.device import DeviceMemory
from stowage.memory.kv.budget import KvBudget, kv_budget
from stowage.memory.kv.question import keeps_states
from stowage.memory.ledger import Ledger, Verdict
from stowage.memory.margins import margins
from stowage.memory.quantized.on_load import check_load_peak, quantized_on_load
from stowage.memory.quantized.rules import check_quantization
from stowage.memory.rank import rank_terms
from stowage.memory.release.batch_limits import default_batch_limits
from stowage.memory.release.engine_version import EngineVersion, engine_on
from stowage.memory.setting import Setting
from stowage.memory.shape import EngineShape
from stowage.memory.verdict import judge
from stowage.model.profile import ModelProfile

__all__ = [
    "Band",
    "DeviceMemory",
    "EngineShape",
    "Ledger",
    "default_batch_limits",
    "largest_max_num_seqs",
    "ledger",
    "rank_ledgers",
    "tightest",
]

_VERDICTS: Final = ("DoesNotFit", "Tight", "Fits")


def ledger(
    profile: ModelProfile,
    shape: EngineShape,
    device: DeviceMemory,
    version: EngineVersion,
    calibration: Calibration = UNCALIBRATED,
) -> Ledger | Refusal:
    """Give the ledger of the tightest rank, or the refusal of a shape that the engine does not accept.

    `calibration` holds what measured starts of such servers taught about the estimated terms.
    """
    stages = _stages(profile, shape, device, version, calibration)
    if isinstance(stages, Refusal):
        return stages
    length = shape.max_model_len
    spare = [
        (_VERDICTS.index(judged[0]), budget.available_bytes(length) - budget.needed_bytes(length))
        for budget, judged in zip(stages.budgets, stages.judged, strict=True)
    ]
    return _ledger(stages, spare.index(min(spare)))


def tightest(ledgers: Sequence[Ledger]) -> Ledger:
    """Choose the rank that decides: the worst verdict, then the least KV memory to spare."""
    return min(ledgers, key=_tightness)


def rank_ledgers(
    profile: ModelProfile,
    shape: EngineShape,
    device: DeviceMemory,
    version: EngineVersion,
    calibration: Calibration = UNCALIBRATED,
) -> tuple[Ledger, ...] | Refusal:
    """Give one ledger for each pipeline stage, as its ranks are alike; all carry the smallest block count."""
    stages = _stages(profile, shape, device, version, calibration)
    if isinstance(stages, Refusal):
        return stages
    return tuple(_ledger(stages, stage) for stage in range(len(stages.budgets)))


@dataclass(frozen=True, slots=True)
class _Stages:
    """What all ledgers of a question are made of: the budget and the verdict of each stage."""

    setting: Setting
    budgets: tuple[KvBudget, ...]
    judged: tuple[tuple[Verdict, Refusal | None, str | None], ...]
    num_blocks: int


def _stages(
    profile: ModelProfile,
    shape: EngineShape,
    device: DeviceMemory,
    version: EngineVersion,
    calibration: Calibration,
) -> _Stages | Refusal:
    loaded = quantized_on_load(profile, shape.quantization, version)
    if isinstance(loaded, Refusal):
        return loaded
    setting = Setting(loaded, shape, device, _on(loaded, version, device), calibration)
    refusal = (
        _layout_refusal(setting.basis, version)
        or check_limits(loaded, shape, device)
        or check_load_peak(profile, shape, device, version)
    )
    if refusal is not None:
        return refusal
    if isinstance(setting.kv_cache, Refusal):
        return setting.kv_cache
    budgets = tuple(
        kv_budget(setting, rank_terms(setting, stage)) for stage in range(shape.pipeline_parallel_size)
    )
    judged = tuple(judge(margins(setting, budget)) for budget in budgets)
    num_blocks = min(budget.num_blocks(shape.max_model_len) for budget in budgets)
    return _Stages(setting, budgets, judged, num_blocks)


@lru_cache(maxsize=4096)
def _layout_refusal(basis: Basis, version: EngineVersion) -> Refusal | None:
    """Give the first rule that a layout breaks whatever its limits are, by the release that was asked for."""
    profile, shape, device = basis.profile, basis.shape, basis.device
    return (
        check_release(profile, version)
        or check_layout(profile, shape, device)
        or check_quantization(profile, shape, device, version)
    )


def largest_max_num_seqs(
    profile: ModelProfile, shape: EngineShape, device: DeviceMemory, version: EngineVersion
) -> int | None:
    """Search the largest max_num_seqs, up to max_num_batched_tokens, that fits; None where not even 1 does."""

    def fits(number: int) -> bool:
        answer = ledger(profile, replace(shape, max_num_seqs=number), device, version)
        return isinstance(answer, Ledger) and answer.verdict == "Fits"

    if not fits(1):
        return None
    low, high = 1, shape.max_num_batched_tokens
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _on(profile: ModelProfile, version: EngineVersion, device: DeviceMemory) -> EngineVersion:
    if device.is_cpu:
        return version
    return engine_on(version, device.compute_capability, keeps_states(profile))


def _tightness(entry: Ledger) -> tuple[int, int]:
    return _VERDICTS.index(entry.verdict), entry.kv_cache_bytes - entry.kv_needed_bytes


def _ledger(stages: _Stages, stage: int) -> Ledger:
    setting, budget, num_blocks = stages.setting, stages.budgets[stage], stages.num_blocks
    terms, length = budget.terms, setting.shape.max_model_len
    verdict, refusal, caution = stages.judged[stage]
    available, band = budget.available_bytes(length), budget.band(length)
    pool, largest = terms.pool, budget.largest_max_model_len(setting.profile.max_model_len)
    return Ledger(
        rank=terms.name,
        total_bytes=setting.device.total_bytes,
        budget_bytes=budget.budget_bytes,
        in_use_before_bytes=int(terms.in_use_before.value),
        weights_bytes=terms.weights.tensor_bytes,
        weights_allocated_bytes=terms.weights.block_bytes,
        persistent_bytes=terms.persistent_bytes(length),
        non_torch_bytes=int(terms.non_torch.value),
        activation_bytes=int(terms.activation.value),
        cuda_graph_bytes=int(terms.graphs.value),
        kv_cache_bytes=available,
        kv_cache_band=band,
        block_size=pool.block_size,
        num_gpu_blocks=num_blocks,
        kv_tokens=pool.tokens(num_blocks, length),
        kv_bytes_per_token=pool.bytes_per_token,
        max_concurrency=pool.concurrency(num_blocks, length),
        verdict=verdict,
        refusal=refusal,
        largest_max_model_len=largest,
        safe_max_model_len=largest
        and budget.largest_max_model_len(largest, shift_bytes=band.low - available),
        kv_needed_bytes=budget.needed_bytes(length),
        kv_cache_pinned=budget.pinned,
        cuda_graphs_counted=setting.counts_graphs,
        in_use_before_counted=setting.version.equation == "device-used",
        caution=caution,
        host_memory_bytes=_host_bytes(setting, budget),
        buffers_are_consumed=setting.version.equation == "total-consumed",
    )


def _host_bytes(setting: Setting, budget: KvBudget) -> int:
    """Give the host memory that a CPU engine needs, at the upper end of the estimates."""
    if not setting.device.is_cpu:
        return 0
    terms, length = budget.terms, setting.shape.max_model_len
    fixed = terms.weights.block_bytes + terms.persistent_bytes(length) + budget.available_bytes(length)
    return int(fixed + terms.non_torch.high + terms.activation.high)
