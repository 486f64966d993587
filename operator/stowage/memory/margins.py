"""The checks that a rank must pass, as margins with the refusals that people read.

In the order in which an engine would fail: the gate at start, room for one request of the asked length, and room
for what the release puts on the device without counting it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import floor

from stowage.api.reasons import Reason
from stowage.api.refusal import Refusal
from stowage.memory.band import remainder_band
from stowage.memory.estimates import Estimate
from stowage.memory.kv.budget import KvBudget
from stowage.memory.setting import Setting
from stowage.memory.verdict import Margin

_GIB = 2**30


def margins(setting: Setting, budget: KvBudget) -> tuple[Margin, ...]:
    """Give all checks of one rank, in order."""
    if setting.device.is_cpu:
        return (_kv(setting, budget), _whole_device(setting, budget))
    checks = [] if setting.version.equation == "device-used" else [_gate(setting, budget)]
    checks.append(_kv(setting, budget))
    if budget.pinned:
        checks.append(_whole_device(setting, budget))
    elif not setting.counts_graphs:
        checks.append(_uncounted_graphs(setting, budget))
    return tuple(checks)


def _gate(setting: Setting, budget: KvBudget) -> Margin:
    """Check that free memory at start is at least utilisation × total (vllm/v1/worker/utils.py)."""
    before = (budget.terms.in_use_before,)
    spare = setting.device.total_bytes - budget.budget_bytes
    return _margin(spare, before, partial(_gate_refusal, setting, budget))


def _gate_refusal(setting: Setting, budget: KvBudget) -> Refusal:
    total, before = setting.device.total_bytes, budget.terms.in_use_before.value
    asked = setting.shape.gpu_memory_utilization
    message = (
        f"gpu_memory_utilization {asked:g} asks for {_gib(budget.budget_bytes)} of the {_gib(total)} of "
        f"{setting.device.name}, where about {_gib(before)} are in use before the engine looks."
    )
    highest = max(0, floor((total - before) / max(1, total) * 100)) / 100
    return Refusal(Reason.FREE_MEMORY_BELOW_UTILIZATION, message, f"Use at most {highest:.2f}.")


def _kv(setting: Setting, budget: KvBudget) -> Margin:
    """Check that one request of max_model_len fits into the KV cache."""
    length = setting.shape.max_model_len
    needed, band = budget.needed_bytes(length), budget.band(length)
    return Margin(band.high - needed, band.low - needed, partial(_kv_refusal, setting, budget))


def _kv_refusal(setting: Setting, budget: KvBudget) -> Refusal:
    length, device, terms = setting.shape.max_model_len, setting.device.name, budget.terms
    longest = budget.largest_max_model_len(length)
    if longest is None:
        short = budget.needed_bytes(1) - budget.available_bytes(length)
        message = (
            f"Weights ({_gib(terms.weights.block_bytes)}) and working memory of {terms.name} leave no room "
            f"for a KV cache on {device}: {_gib(short)} are missing."
        )
        return Refusal(Reason.INSUFFICIENT_MEMORY, message, "Use more GPUs per replica, or larger ones.")
    band = budget.band(length)
    left = _gib(budget.available_bytes(length))
    if band.low != band.high:
        left += f" ({max(0, band.low) / _GIB:.1f} to {band.high / _GIB:.1f})"
    message = (
        f"One request of {length:,} tokens needs {_gib(budget.needed_bytes(length))} of KV cache on "
        f"{terms.name}, and {left} are left on {device}."
    )
    return Refusal(Reason.CONTEXT_TOO_LONG, message, f"Use a max_model_len of at most {longest}.")


def _uncounted_graphs(setting: Setting, budget: KvBudget) -> Margin:
    """Check that CUDA graphs fit beside a budget that does not count them."""
    graphs, counts_all = budget.terms.graphs, setting.version.equation == "device-used"
    estimates = (graphs,) if counts_all else (graphs, budget.terms.in_use_before)
    spare = setting.device.total_bytes - budget.budget_bytes
    return _margin(spare, estimates, partial(_graphs_refusal, setting, budget))


def _graphs_refusal(setting: Setting, budget: KvBudget) -> Refusal:
    message = (
        f"vLLM {setting.version.version} captures CUDA graphs outside its budget: about "
        f"{_gib(budget.terms.graphs.value)} beside {_gib(budget.budget_bytes)} do not fit on "
        f"{setting.device.name}."
    )
    hint = "Lower gpu_memory_utilization or max_num_seqs, or set enforce_eager."
    return Refusal(Reason.INSUFFICIENT_MEMORY, message, hint)


def _whole_device(setting: Setting, budget: KvBudget) -> Margin:
    """Check that a pinned KV cache fits beside everything else."""
    spare = setting.device.total_bytes - _fixed_bytes(setting, budget)
    return _margin(spare, _others(budget), partial(_whole_device_refusal, setting, budget))


def _whole_device_refusal(setting: Setting, budget: KvBudget) -> Refusal:
    total, pinned = setting.device.total_bytes, budget.available_bytes(setting.shape.max_model_len)
    taken = int(_fixed_bytes(setting, budget) + sum(term.value for term in _others(budget)))
    message = (
        f"A KV cache of {_gib(pinned)} with weights and working memory takes {_gib(taken)}, and "
        f"{setting.device.name} has {_gib(total)}."
    )
    largest = max(0, pinned + total - taken)
    return Refusal(Reason.INSUFFICIENT_MEMORY, message, f"Use a kv_cache_memory_bytes of at most {largest}.")


def _fixed_bytes(setting: Setting, budget: KvBudget) -> int:
    terms, length = budget.terms, setting.shape.max_model_len
    buffers = terms.weights.block_bytes + terms.persistent_bytes(length)
    return buffers + budget.available_bytes(length)


def _others(budget: KvBudget) -> tuple[Estimate, ...]:
    terms = budget.terms
    return (terms.non_torch, terms.activation, terms.graphs, terms.in_use_before, terms.guessed_weights)


def _margin(spare_bytes: int, estimates: tuple[Estimate, ...], refuse: Callable[[], Refusal]) -> Margin:
    center = spare_bytes - int(sum(term.value for term in estimates))
    band = remainder_band(center, estimates)
    return Margin(band.high, band.low, refuse)


def _gib(number_of_bytes: float) -> str:
    return f"{number_of_bytes / _GIB:.1f} GiB"
