"""aiconfigurator-core as a second estimator behind the same interface: measured kernel tables instead of a roofline.

It runs in a process of its own (extra `estimator`; x86 only, some ten seconds for an answer), covers some GPUs and
models, and is asked for latencies alone: memory, verdicts and bands stay Stowage's. What it does not cover is refused
with the reason, and whoever asked falls back and says so.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

from stowage.api.reasons import Reason
from stowage.api.refusal import Refusal
from stowage.model.profile import MoeProfile
from stowage.performance.forecast import Forecast
from stowage.performance.interval import Interval
from stowage.performance.roofline import Roofline
from stowage.performance.serving import Serving
from stowage.performance.traffic import Traffic

SYSTEMS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "NVIDIA-A100-SXM4-80GB": "a100_sxm",
        "NVIDIA-A100-80GB-PCIe": "a100_pcie",
        "NVIDIA-A30": "a30",
        "NVIDIA-H100-80GB-HBM3": "h100_sxm",
        "NVIDIA-H100-PCIe": "h100_pcie",
        "NVIDIA-H200": "h200_sxm",
        "NVIDIA-B200": "b200_sxm",
        "NVIDIA-B300-SXM6-AC": "b300_sxm",
        "NVIDIA-GB200": "gb200",
        "NVIDIA-GB300": "gb300",
        "NVIDIA-L4": "l4",
        "NVIDIA-L40S": "l40s",
        "NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition": "rtx_pro_6000_server",
        "Intel-Arc-Pro-B60": "b60",
    }
)
"""Names of our catalog, and the package's system files (aiconfigurator-core 0.12.0, systems/)."""

_RENAMED: Final = ("meta-llama/Llama-3.1-", "meta-llama/Meta-Llama-3.1-")
_BAND: Final = (0.72, 0.25)
"""Half-widths for TTFT and TPOT: its own 90th percentiles over 525 measured vLLM rows."""

_TIMEOUT_SECONDS: Final = 300


@dataclass
class AiconfiguratorEstimator:
    """Forecasts by aiconfigurator-core; remembers what it was asked."""

    timeout_seconds: int = _TIMEOUT_SECONDS
    _known: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Who answers."""
        return "aiconfigurator"

    def forecast(self, serving: Serving, traffic: Traffic) -> Forecast | Refusal:
        """Give what this traffic sees from this replica, or what is not covered."""
        ours = Roofline().forecast(serving, traffic)
        if isinstance(ours, Refusal):
            return ours
        question = question_of(serving, traffic, ours.decode_batch)
        if isinstance(question, Refusal):
            return question
        text = json.dumps(question, sort_keys=True)
        found = self._known.get(text)
        if found is None:
            found = self._known[text] = self._ask(text)
        if "refused" in found:
            return _uncovered(str(found["refused"]))
        return _merged(ours, traffic, found)

    def _ask(self, text: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "stowage.feed.aiconfigurator_worker"]
        try:
            done = subprocess.run(
                command, input=text, capture_output=True, text=True, timeout=self.timeout_seconds, check=False
            )
        except subprocess.TimeoutExpired:
            return {"refused": f"aiconfigurator-core gave no answer within {self.timeout_seconds} s"}
        lines = done.stdout.strip().splitlines()
        if done.returncode != 0 or not lines:
            return {"refused": f"aiconfigurator-core ended with code {done.returncode}"}
        answer: dict[str, Any] = json.loads(lines[-1])
        return answer


def question_of(serving: Serving, traffic: Traffic, decode_batch: float) -> dict[str, Any] | Refusal:
    """Put the question in the package's terms, or say what it has no terms for.

    It counts requests per pipeline stage and data-parallel rank, while ours are of the whole replica.
    """
    system = SYSTEMS.get(serving.gpu.name)
    if system is None:
        return _uncovered(f"aiconfigurator-core has no measurements of {serving.gpu.name}")
    shape = serving.shape
    if shape.quantization is not None:
        return _uncovered(
            "aiconfigurator-core reads precision from the checkpoint, not from the engine's options"
        )
    source = serving.profile.source.removeprefix("hf://")
    ranks, stages = shape.data_parallel_size, shape.pipeline_parallel_size
    batch = (traffic.concurrency / ranks if traffic.concurrency else max(1.0, decode_batch)) / stages
    batch = min(batch, shape.max_num_seqs / stages, serving.kv_tokens / traffic.mean_context_tokens / stages)
    experts = any(isinstance(layer.feed_forward, MoeProfile) for layer in serving.profile.layers)
    width = shape.tensor_parallel_size * ranks
    spread = experts and shape.enable_expert_parallel
    return {
        "model": source.replace(*_RENAMED) if source.startswith(_RENAMED[0]) else source,
        "system": system,
        "version": serving.version.version,
        "tensor_parallel_size": shape.tensor_parallel_size,
        "pipeline_parallel_size": stages,
        "data_parallel_size": ranks,
        "moe_tp_size": 1 if spread or not experts else width,
        "moe_ep_size": width if spread else 1,
        "kv_cache": _kv_format(serving),
        "batch": max(1, round(batch)),
        "prompt_tokens": traffic.prompt_tokens,
        "output_tokens": traffic.output_tokens,
        "prefix_tokens": traffic.prompt_tokens - traffic.computed_prompt_tokens,
        "max_num_batched_tokens": shape.max_num_batched_tokens,
    }


def _kv_format(serving: Serving) -> str:
    asked = serving.shape.kv_cache_dtype
    if asked == "auto":
        asked = serving.profile.kv_cache_dtype or "auto"
    return "fp8" if asked.startswith("fp8") else "int8" if asked.startswith("int8") else "bfloat16"


def _merged(ours: Forecast, traffic: Traffic, found: Mapping[str, Any]) -> Forecast:
    ttft, tpot = found["ttft_ms"] / 1000, found["tpot_ms"] / 1000
    rate = Interval.around(found["requests_per_second"], _BAND[1])
    return replace(
        ours,
        ttft_seconds=Interval.around(ttft, _BAND[0]),
        tpot_seconds=Interval.around(tpot, _BAND[1]),
        requests_per_second=rate,
        output_tokens_per_second=rate.map(lambda value: value * traffic.output_tokens),
        ttft_p95_seconds=ours.ttft_p95_seconds * ttft / ours.ttft_seconds.central,
        tpot_p95_seconds=ours.tpot_p95_seconds * tpot / ours.tpot_seconds.central,
        answered_by="aiconfigurator",
        assumptions=(
            *ours.assumptions,
            f"latencies by aiconfigurator-core from kernels of vLLM {found['version']}; verdicts by the roofline",
        ),
    )


def _uncovered(message: str) -> Refusal:
    return Refusal(Reason.NOT_SUPPORTED, f"{message}.", "Use the default estimator.")
