"""Shapes that the engine does not accept: each a refusal with what would work."""

from __future__ import annotations

from typing import Any

import pytest

from stowage.api.refusal import Refusal
from stowage.memory.budget import ledger
from stowage.memory.constraints import tensor_parallel_sizes
from stowage.memory.device import DeviceMemory
from stowage.memory.ledger import Ledger
from tests.memory.support import H100, NODE, T4, shape, version
from tests.model.support import TINY, profile_of, published

LLAMA = "meta-llama--Llama-3.1-8B-Instruct"


@pytest.mark.parametrize(
    ("folder", "device", "changes", "reason", "words"),
    [
        pytest.param(
            "microsoft--phi-4", H100, {"tensor_parallel_size": 4}, "InvalidParallelism", "TP 1, 2.",
            id="phi-4 at TP 4 has ten kv heads",
        ),
        pytest.param(
            LLAMA, H100, {"tensor_parallel_size": 3}, "InvalidParallelism", "32 attention heads", id="TP 3 of 32 heads"
        ),
        pytest.param(
            "Qwen--Qwen2.5-7B-Instruct", H100, {"tensor_parallel_size": 7}, "InvalidParallelism", "key/value",
            id="TP 7 divides 28 heads but not four kv heads",
        ),
        pytest.param(
            LLAMA, H100, {"pipeline_parallel_size": 33}, "InvalidParallelism", "32 layers", id="more stages than layers"
        ),
        pytest.param(LLAMA, H100, {"tensor_parallel_size": 0}, "InvalidParallelism", "at least 1", id="TP 0"),
        pytest.param(LLAMA, H100, {"max_model_len": 131073}, "ContextTooLong", "131072", id="beyond the model"),
        pytest.param(LLAMA, H100, {"max_model_len": 0}, "InvalidSpec", "at least 1", id="no context at all"),
        pytest.param(
            LLAMA, H100, {"max_num_batched_tokens": 128}, "PinConflict", "256", id="fewer tokens than requests"
        ),
        pytest.param(
            LLAMA, H100, {"gpu_memory_utilization": 1.1}, "InvalidSpec", "1.1", id="more than the whole device"
        ),
        pytest.param(
            LLAMA, H100, {"kv_cache_memory_bytes": 0}, "InvalidSpec", "kv_cache_memory_bytes", id="no KV cache"
        ),
        pytest.param(LLAMA, H100, {"dtype": "int8"}, "UnsupportedDtype", "int8", id="a dtype nobody knows"),
        pytest.param(LLAMA, H100, {"kv_cache_dtype": "int3"}, "UnsupportedDtype", "int3", id="a KV dtype not sized"),
        pytest.param(LLAMA, T4, {"dtype": "bfloat16"}, "UnsupportedDtype", "Tesla-T4", id="bfloat16 before Ampere"),
        pytest.param(LLAMA, NODE, {}, "PinConflict", "kv_cache_memory_bytes", id="a CPU node without pinned KV"),
        pytest.param(
            LLAMA, NODE, {"kv_cache_memory_bytes": 1 << 30, "tensor_parallel_size": 2}, "NotSupported", "CPU",
            id="tensor parallel on CPUs",
        ),
    ],
)  # fmt: skip
def test_refused_shapes(
    folder: str, device: DeviceMemory, changes: dict[str, Any], reason: str, words: str
) -> None:
    answer = ledger(published(folder), shape(**changes), device, version())
    assert isinstance(answer, Refusal)
    assert answer.reason.value == reason
    assert words in answer.sentence


@pytest.mark.parametrize(
    ("folder", "sizes"),
    [
        pytest.param(LLAMA, (1, 2, 4, 8, 16), id="Llama-3.1-8B"),
        pytest.param("microsoft--phi-4", (1, 2), id="phi-4"),
        pytest.param("Qwen--Qwen2.5-7B-Instruct", (1, 2, 4), id="Qwen2.5-7B"),
    ],
)
def test_sizes_that_work(folder: str, sizes: tuple[int, ...]) -> None:
    assert tensor_parallel_sizes(published(folder)) == sizes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"intermediate_size": 500}, "feed-forward", id="the feed-forward size"),
        pytest.param({"vocab_size": 100, "num_attention_heads": 12, "num_key_value_heads": 12, "hidden_size": 192,
                      "intermediate_size": 12}, "vocabulary", id="the padded vocabulary"),
    ],
)  # fmt: skip
def test_every_split_dimension_is_checked(changes: dict[str, Any], words: str) -> None:
    profile = profile_of(TINY, **changes)
    size = 3 if words == "vocabulary" else 8
    answer = ledger(profile, shape(tensor_parallel_size=size), H100, version())
    assert isinstance(answer, Refusal)
    assert words in answer.message


def test_an_architecture_that_a_release_dropped_is_refused_with_the_last_one_that_serves_it() -> None:
    profile = profile_of(TINY, architectures=["XverseForCausalLM"])
    asked = shape(max_model_len=2048)
    assert isinstance(ledger(profile, asked, H100, version("0.22.1")), Ledger)
    refusal = ledger(profile, asked, H100, version("0.32.0"))
    assert isinstance(refusal, Refusal)
    assert refusal.reason.value == "UnsupportedArchitecture"
    assert "0.23.0" in refusal.hint
