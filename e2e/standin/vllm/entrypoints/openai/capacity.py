"""What the stand-in says it holds: weights, KV cache in bytes, blocks and tokens, as vLLM 0.32 counts them.

Why: reports, metrics and log lines of one stand-in must agree with each other and with the options given.
Source of the arithmetic: `vllm/v1/core/kv_cache_utils.py` (capacity, start check) and
`vllm/v1/worker/gpu_worker.py` (budget).
It must never be used as a prediction: it is the other side that predictions are compared with.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .checkpoint import Checkpoint
from .machine import Machine
from .steering import Steering

_DTYPE_BYTES = {"float32": 4, "float": 4}
_GIB = 1 << 30


class DoesNotFitError(Exception):
    """The engine would refuse to start; the message has vLLM's words."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """Figures of one rank.

    (`weight_bytes`, `kv_bytes`) and of the engine (`blocks`, `tokens`, `concurrency`).

    """

    max_model_len: int
    weight_bytes: int
    kv_bytes: int
    block_size: int
    blocks: int
    tokens: int
    concurrency: float


def capacity_of(
    options: argparse.Namespace, checkpoint: Checkpoint, machine: Machine, steering: Steering
) -> Capacity:
    """Work out all figures, or raise `DoesNotFitError`."""
    ranks = options.tensor_parallel_size * options.pipeline_parallel_size
    if machine.gpu_total_bytes and ranks > len(machine.gpu_total_bytes):
        raise DoesNotFitError(
            f"World size ({ranks}) is larger than the number of available GPUs "
            f"({len(machine.gpu_total_bytes)}) in this node."
        )
    max_model_len = _max_model_len(options.max_model_len, checkpoint.config)
    weight_bytes = (
        steering.weight_bytes or checkpoint.weight_bytes or _dense_weight_bytes(checkpoint.config)
    ) // ranks
    block_size = options.block_size or machine.default_block_size
    block_bytes = block_size * _kv_bytes_per_token(options, checkpoint.config)
    kv_bytes = _kv_bytes(options, machine, steering, weight_bytes)
    if steering.kv_tokens:
        kv_bytes = math.ceil(steering.kv_tokens / block_size) * block_bytes
    blocks = options.num_gpu_blocks_override or max(0, kv_bytes) // block_bytes
    blocks_per_request = math.ceil(max_model_len / block_size)
    _check(blocks, blocks_per_request, block_bytes, block_size, max_model_len)
    concurrency = blocks / blocks_per_request
    return Capacity(
        max_model_len,
        weight_bytes,
        kv_bytes,
        block_size,
        blocks,
        int(concurrency * max_model_len),
        concurrency,
    )


def gib(size_bytes: int) -> str:
    """Bytes as vLLM prints them: GiB, at most two decimals."""
    return f"{round(size_bytes / _GIB, 2)}"


def _check(blocks: int, needed: int, block_bytes: int, block_size: int, max_model_len: int) -> None:
    """Return the start check: one block is never given out."""
    usable = blocks - 1
    if usable <= 0:
        raise DoesNotFitError(
            "No available memory for the cache blocks. "
            "Try increasing `gpu_memory_utilization` when initializing the engine."
        )
    if needed > usable:
        raise DoesNotFitError(
            too_small_message(max_model_len, needed * block_bytes, usable * block_bytes, usable * block_size)
        )


def too_small_message(max_model_len: int, needed_bytes: int, available_bytes: int, fitting_len: int) -> str:
    """Return the words with which vLLM refuses a KV cache that does not hold one request."""
    return (
        f"To serve at least one request with the model's max seq len ({max_model_len}), "
        f"({gib(needed_bytes)} GiB KV cache is needed, which is larger than the available KV cache memory "
        f"({gib(available_bytes)} GiB). "
        f"Based on the available memory, the estimated maximum model length is {fitting_len}. "
        "Try increasing `gpu_memory_utilization` (which also controls CPU memory on the CPU backend) or "
        "decreasing `max_model_len` when initializing the engine."
    )


def _kv_bytes(options: argparse.Namespace, machine: Machine, steering: Steering, weight_bytes: int) -> int:
    if options.kv_cache_memory_bytes is not None:
        return int(options.kv_cache_memory_bytes)
    if steering.kv_bytes:
        return steering.kv_bytes
    if not machine.gpu_total_bytes:
        raise DoesNotFitError("stand-in: the CPU build needs --kv-cache-memory-bytes")
    graph_bytes = 0 if options.enforce_eager else steering.cuda_graph_bytes
    budget = math.ceil(min(machine.gpu_total_bytes) * options.gpu_memory_utilization)
    return int(budget - weight_bytes - steering.activation_bytes - graph_bytes - steering.non_torch_bytes)


def _kv_bytes_per_token(options: argparse.Namespace, config: Mapping[str, Any]) -> int:
    """Bytes of keys and values per token on one rank; a KV head is never split."""
    heads = config["num_attention_heads"]
    kv_heads = math.ceil(config.get("num_key_value_heads", heads) / options.tensor_parallel_size)
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    layers = math.ceil(config["num_hidden_layers"] / options.pipeline_parallel_size)
    element_bytes = 1 if options.kv_cache_dtype.startswith("fp8") else _DTYPE_BYTES.get(options.dtype, 2)
    return int(2 * layers * kv_heads * head_dim * element_bytes)


def _max_model_len(wanted: str | None, config: Mapping[str, Any]) -> int:
    own = int(config.get("max_position_embeddings", 2048))
    if wanted is None or wanted in ("auto", "-1"):
        return own
    if int(wanted) > own:
        raise DoesNotFitError(
            f"User-specified max_model_len ({wanted}) is greater than the derived max_model_len "
            f"(max_position_embeddings={own} or model_max_length=None in model's config.json)."
        )
    return int(wanted)


def _dense_weight_bytes(config: Mapping[str, Any]) -> int:
    """16-bit bytes of a dense decoder where no weights are there to be measured."""
    hidden, layers, heads = config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    kv_heads = config.get("num_key_value_heads", heads)
    attention = hidden * head_dim * (2 * heads + 2 * kv_heads)
    mlp = 3 * hidden * config["intermediate_size"]
    embeddings = config["vocab_size"] * hidden * (1 if config.get("tie_word_embeddings") else 2)
    return int(2 * (layers * (attention + mlp) + embeddings))
