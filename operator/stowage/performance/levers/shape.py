"""Levers on the shape: how the replica is split, how many there are, on which GPU, and how long batches may be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from stowage.api.refusal import Refusal
from stowage.hardware.gpu import Gpu
from stowage.performance.levers.attempt import Attempt
from stowage.performance.levers.question import LeverQuestion, in_flight

_NODE_SIZES: Final = (2, 4, 8)


def shape_levers(question: LeverQuestion) -> Iterator[Attempt]:
    """Give the levers on batch limits, parallelism, replicas and GPUs."""
    yield from _longer_batches(question)
    yield _tensor(question)
    if question.serving.shape.tensor_parallel_size > 1:
        yield pipeline_instead(question)
    yield _replicas(question)
    for gpu in question.others:
        if gpu.name != question.serving.gpu.name:
            yield _other_gpu(question, gpu)


def pipeline_instead(question: LeverQuestion) -> Attempt:
    """Split half of the tensor parallel ranks by layers instead; there must be two at least."""
    shape = question.serving.shape
    tensor, stages = shape.tensor_parallel_size // 2, shape.pipeline_parallel_size * 2
    changed = replace(shape, tensor_parallel_size=tensor, pipeline_parallel_size=stages)
    why = (
        f"stages wait for each other with few requests in flight; all-reduces take "
        f"{question.share_of_time('all_reduce'):.0%} of the GPU time now"
    )
    return Attempt(
        "PP instead of TP",
        f"tp{shape.tensor_parallel_size} → tp{tensor} pp{stages}",
        question.refit(shape=changed),
        why,
    )


def _longer_batches(question: LeverQuestion) -> Iterator[Attempt]:
    shape, base = question.serving.shape, question.base
    tokens = 2 * shape.max_num_batched_tokens
    yield Attempt(
        "max_num_batched_tokens ×2",
        f"max_num_batched_tokens {shape.max_num_batched_tokens:,} → {tokens:,}",
        question.refit(shape=replace(shape, max_num_batched_tokens=tokens)),
        f"prompts take {base.prefill_share:.0%} of the GPU time and are {question.load.computed_prompt_tokens:,} "
        "tokens long",
    )
    seqs = min(2 * shape.max_num_seqs, shape.max_num_batched_tokens)
    why = f"the batch is bound by max_num_seqs {shape.max_num_seqs}"
    if base.batch_limit == "kv_tokens":
        why = "the batch is bound by the room for KV, not by max_num_seqs"
    elif base.batch_limit != "max_num_seqs":
        why = f"{in_flight(question)}, fewer than max_num_seqs {shape.max_num_seqs}"
    yield Attempt(
        "max_num_seqs ×2",
        f"max_num_seqs {shape.max_num_seqs:,} → {seqs:,}",
        question.refit(shape=replace(shape, max_num_seqs=seqs)),
        why,
    )


def _tensor(question: LeverQuestion) -> Attempt:
    shape, base = question.serving.shape, question.base
    size = 2 * shape.tensor_parallel_size
    link = question.serving.gpu.link
    why = f"each GPU reads and computes half as much, and they exchange vectors over {link}"
    if base.decode.bound.value == "Overhead":
        why += "; launches and the host do not become faster"
    return Attempt(
        "TP ×2",
        f"tp{shape.tensor_parallel_size} → tp{size}, twice the GPUs",
        question.refit(shape=replace(shape, tensor_parallel_size=size)),
        why,
    )


def _replicas(question: LeverQuestion) -> Attempt:
    flying = question.load.concurrency or 1
    half = max(1, flying // 2)
    why = f"each replica has {half} of {flying} requests in flight, and reads all weights for them"
    if flying == 1:
        why = "one request in flight keeps one replica busy; the other waits"
    return Attempt("replicas ×2", "twice the GPUs, half the requests each", question.serving, why, replicas=2)


def _other_gpu(question: LeverQuestion, gpu: Gpu) -> Attempt:
    """Take the fewest of another GPU that hold the model and what is in flight, else as many as hold the model."""
    now, shape = question.serving.gpu, question.serving.shape
    plain = replace(shape, pipeline_parallel_size=1, data_parallel_size=1, enable_expert_parallel=False)
    wanted = min(float(question.load.concurrency or 1), question.requests_at_once(question.serving))
    found = question.refit(gpu=gpu, shape=replace(plain, tensor_parallel_size=1))
    for size in _NODE_SIZES:
        if not isinstance(found, Refusal) and question.requests_at_once(found) >= wanted:
            break
        attempt = question.refit(gpu=gpu, shape=replace(plain, tensor_parallel_size=size))
        found = attempt if isinstance(found, Refusal) or not isinstance(attempt, Refusal) else found
    number = f"up to {_NODE_SIZES[-1]}" if isinstance(found, Refusal) else str(found.shape.world_size)
    changes = f"instead of {shape.world_size}x {now.name}"
    return Attempt(f"{number}x {gpu.name}", changes, found, _peaks(gpu, now), is_other_gpu=True)


def _peaks(gpu: Gpu, now: Gpu) -> str:
    flops = (gpu.bf16_flops or gpu.fp16_flops) / (now.bf16_flops or now.fp16_flops)
    bandwidth = gpu.memory_bytes_per_second / now.memory_bytes_per_second
    return f"{flops:.1f} times the FLOP/s and {bandwidth:.1f} times the memory bandwidth of each GPU now"
