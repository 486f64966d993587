"""The table of docs/performance-claims.md: what is often said about speed, next to what the performance model computes.

Every number in it is computed when the page is made. What cannot be computed (what a format does to answers) is said to
be measured elsewhere, never predicted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final

from stowage.memory.budget import ledger
from stowage.memory.device import DeviceMemory
from stowage.memory.ledger import Ledger
from stowage.memory.release.engine_version import EngineVersion, engine_version, newest_engine_version
from stowage.memory.shape import EngineShape
from stowage.memory.weights import unsharded_parameter_bytes
from stowage.performance.levers import judged, levers
from stowage.performance.levers.attempt import Attempt
from stowage.performance.levers.effect import Effect, percent
from stowage.performance.levers.kv import capacity
from stowage.performance.levers.question import LeverQuestion
from stowage.performance.levers.shape import pipeline_instead
from stowage.performance.levers.work import prefill_halved
from stowage.performance.serving import Serving
from stowage.performance.step import StepBatch, StepTime, step_time
from stowage.performance.traffic import Traffic
from tools.planning_examples import gpu_named, markdown, profile_of

_EIGHT: Final = "meta-llama--Llama-3.1-8B-Instruct"
_SEVENTY: Final = "meta-llama--Meta-Llama-3.1-70B"
_MISTRAL: Final = "mistralai--Mistral-7B-Instruct-v0.3"
_FEW: Final = (1, 2, 4, 8)


def claims_table() -> str:
    """Give the table, in Markdown."""
    head = ("claim", "holds?", "Stowage's own number")
    rows = (_mistral(), _tensor(), _pipeline(), _compression(), _prefill(), _prompt(), _weights(), _int4())
    return markdown([head, *rows])


def _mistral() -> tuple[str, ...]:
    found = []
    weight_bytes = unsharded_parameter_bytes(profile_of(_MISTRAL))
    for name in ("A100", "H100", "RTX 4090"):
        question = _question(_MISTRAL, name, 1, Traffic(500, 150, 1))
        ceiling = question.serving.gpu.memory_bytes_per_second / weight_bytes
        reached = 1 / question.base.tpot_seconds.central
        found.append(f"{name} {reached:.0f} of at most {ceiling:.0f}")
    numbers = "; ".join(found)
    return (
        '"137 tokens/s for a Mistral-7B"',
        "for one request on an A100, nearly, as a ceiling",
        f"one request in bf16 decodes at {numbers} tokens/s (memory bandwidth ÷ {weight_bytes / 1e9:.2f} GB of "
        "weights); many requests together reach far more",
    )


def _tensor() -> tuple[str, ...]:
    parts = []
    for name in ("H100", "L40S"):
        serving = _serving(_SEVENTY, name, 4 if name == "H100" else 8)
        decode = step_time(serving, StepBatch(decode_sequences=32, decode_context=32 * 2100.0))
        prefill = step_time(serving, StepBatch(8192, 8192 * 1000.0, 4))
        link = serving.gpu.link
        parts.append(
            f"TP{serving.shape.tensor_parallel_size} on {name} ({link}): {_exchange(decode):.0%} of a step that "
            f"decodes 32 requests, {_exchange(prefill):.0%} of one with 8,192 tokens of prompts"
        )
    return (
        '"Tensor parallelism costs 10–15 %"',
        "depends on link and phase",
        f"time in all-reduces, Llama-3.1-70B: {'; '.join(parts)}",
    )


def _pipeline() -> tuple[str, ...]:
    def lost(name: str) -> str:
        shares = [
            _effect(pipeline_instead, _question(_SEVENTY, name, 8, Traffic(2000, 200, flying)))
            for flying in (*_FEW, 64)
        ]
        words = [percent(effect.output_tokens_per_second.share) for effect in shares]
        return (
            f"{', '.join(words[:-1])} for {', '.join(map(str, _FEW))} requests in flight, {words[-1]} for 64"
        )

    return (
        '"Pipeline parallelism loses 22 %"',
        "with few requests; not with many, and less without NVLink",
        f"TP4×PP2 instead of TP8, Llama-3.1-70B, 2,000 in and 200 out: H100 {lost('H100')}; L40S (PCIe) "
        f"{lost('L40S')}. Unmeasured",
    )


def _compression() -> tuple[str, ...]:
    bound = _question(_EIGHT, "H100", 1, Traffic(2000, 200, 128), seqs=32)
    room = _question(_EIGHT, "L4", 1, Traffic(3000, 300, 128), seqs=256)
    gained = [
        percent(_effect(lambda question: capacity(question, 30), question).output_tokens_per_second.share)
        for question in (bound, room)
    ]
    return (
        '"30× KV compression brings < 3 %"',
        "where the batch is bound by max_num_seqs",
        f"30 times the room for KV, Llama-3.1-8B: {gained[0]} on an H100 with max_num_seqs 32; {gained[1]} on an L4 "
        "whose batch is bound by the room for KV",
    )


def _prefill() -> tuple[str, ...]:
    found = []
    for folder, ranks, flying in ((_EIGHT, 1, 128), (_SEVENTY, 4, 64)):
        question = _question(folder, "H100", ranks, Traffic(2000, 200, flying))
        effect = _effect(prefill_halved, question)
        found.append(
            f"{_named(folder)} on {ranks}× H100 with {flying} in flight: prompts take "
            f"{question.base.prefill_share:.0%} of the GPU time, {percent(effect.output_tokens_per_second.share)}"
        )
    return (
        '"Prefill −50 % brings +47–52 %"',
        "where prompts take two thirds of the GPU time",
        f"1 / (1 − f/2) for a share f of prompts, 2,000 in and 200 out: {'; '.join(found)}",
    )


def _prompt() -> tuple[str, ...]:
    serving = _serving(_SEVENTY, "H100", 4)
    one, two = (step_time(serving, StepBatch(n, n**2 / 2, 1)) for n in (2048, 4096))
    return (
        '"Twice the prompt is four times the work"',
        "attention alone",
        f"Llama-3.1-70B on 4× H100, 2,048 → 4,096 tokens: {two.attention / one.attention:.1f} times the attention, "
        f"{two.total / one.total:.1f} times the time",
    )


def _weights() -> tuple[str, ...]:
    found = []
    for flying in (1, 64):
        question = _question(_EIGHT, "H100", 1, Traffic(2000, 200, flying))
        by_name = {lever.name: lever.effect for lever in levers(question)}
        gains = [
            percent(effect.output_tokens_per_second.share)
            for name in ("weight-only 4 bit", "W8A8 fp8")
            if (effect := by_name[name]) is not None
        ]
        plural = "request" if flying == 1 else "requests"
        found.append(f"{flying} {plural} in flight: weight-only 4 bit {gains[0]}, W8A8 fp8 {gains[1]}")
    return (
        '"4-bit weights make it three times as fast"',
        "decoding few requests, not quite; busy servers not at all",
        f"Llama-3.1-8B on an H100, 2,000 in and 200 out: {'; '.join(found)} tokens/s",
    )


def _int4() -> tuple[str, ...]:
    return (
        '"INT4 loses 8.7 %"',
        "measured elsewhere, not predicted",
        "what a format does to answers depends on model, method and task; Stowage measures it on the user's own "
        "prompts (the accuracy check) and predicts no number",
    )


@cache
def _serving(folder: str, name: str, ranks: int, seqs: int = 256) -> Serving:
    profile, gpu = profile_of(folder), gpu_named(name)
    version = engine_version(newest_engine_version())
    if not isinstance(version, EngineVersion):
        raise TypeError(version.sentence)
    shape = EngineShape(ranks, 1, "auto", "auto", 0.9, 8192, seqs, 8192, False, None)
    device = DeviceMemory(gpu.name, gpu.cuda_total_bytes, gpu.compute_capability)
    found = ledger(profile, shape, device, version)
    if not isinstance(found, Ledger) or found.refusal is not None:
        raise ValueError(f"{folder} on {ranks}x {name}: {found}")
    return Serving(profile, shape, gpu, version, found.kv_tokens)


def _question(folder: str, name: str, ranks: int, traffic: Traffic, seqs: int = 256) -> LeverQuestion:
    serving = _serving(folder, name, ranks, seqs)
    return LeverQuestion(serving, traffic, serving.gpu.cuda_total_bytes)


def _effect(attempt: Callable[[LeverQuestion], Attempt], question: LeverQuestion) -> Effect:
    effect = judged(question, attempt(question)).effect
    if effect is None:
        raise ValueError("the lever is impossible")
    return effect


def _exchange(step: StepTime) -> float:
    return step.all_reduce / step.total


def _named(folder: str) -> str:
    return folder.partition("--")[2].removeprefix("Meta-").removesuffix("-Instruct")
