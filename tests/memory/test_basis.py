"""What is remembered for a layout: the same for all limits, another one for anything else, and never another answer."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from stowage.memory.basis import basis_of
from stowage.memory.budget import ledger
from stowage.memory.shape import EngineShape, LoraSettings, SpeculativeSettings
from tests.memory.support import A100, H100, shape, version
from tests.model.support import published

LLAMA_8B = "meta-llama--Llama-3.1-8B-Instruct"
LIMITS: dict[str, Any] = {
    "gpu_memory_utilization": 0.5,
    "max_model_len": 4096,
    "max_num_seqs": 7,
    "max_num_batched_tokens": 4096,
    "kv_cache_memory_bytes": 2**30,
}
OTHERS: dict[str, Any] = {
    "tensor_parallel_size": 2,
    "pipeline_parallel_size": 2,
    "dtype": "float16",
    "kv_cache_dtype": "fp8",
    "enforce_eager": True,
    "data_parallel_size": 2,
    "enable_expert_parallel": True,
    "decode_context_parallel_size": 2,
    "block_size": 32,
    "quantization": "fp8_per_tensor",
    "enable_prefix_caching": False,
    "language_model_only": True,
    "limit_mm_per_prompt": (("image", 0),),
    "cudagraph_capture_sizes": (1, 2),
    "lora": LoraSettings(),
    "speculative": SpeculativeSettings("ngram", 3),
    "disable_hybrid_kv_cache_manager": True,
}


def test_every_setting_is_a_limit_or_not() -> None:
    assert {each.name for each in fields(EngineShape)} == LIMITS.keys() | OTHERS.keys()


@pytest.mark.parametrize("name", LIMITS)
def test_limits_share_a_basis(name: str) -> None:
    profile, changed = published(LLAMA_8B), shape(**{name: LIMITS[name]})
    assert changed != shape()
    assert basis_of(profile, changed, H100, version()) is basis_of(profile, shape(), H100, version())


@pytest.mark.parametrize("name", OTHERS)
def test_everything_else_has_its_own(name: str) -> None:
    profile, changed = published(LLAMA_8B), shape(**{name: OTHERS[name]})
    assert basis_of(profile, changed, H100, version()) is not basis_of(profile, shape(), H100, version())


def test_device_and_release_have_their_own() -> None:
    profile, asked = published(LLAMA_8B), shape()
    found = {
        basis_of(profile, asked, gpu, version(name)) for gpu in (A100, H100) for name in ("0.31.0", "0.32.0")
    }
    assert len(found) == 4


@pytest.mark.parametrize(
    "folder",
    [
        pytest.param(LLAMA_8B, id="dense"),
        pytest.param("google--gemma-3-27b-it", id="windows and a tower"),
        pytest.param("openai--whisper-large-v3-turbo", id="cross attention with room for a batch"),
        pytest.param("Qwen--Qwen3.5-4B", id="recurrent states"),
    ],
)
def test_questions_asked_before_change_no_answer(folder: str) -> None:
    profile = published(folder)
    asked = [
        shape(max_model_len=length, max_num_seqs=seqs, max_num_batched_tokens=8 * seqs, kv_cache_dtype=kind)
        for length in (64, 440)
        for seqs in (16, 64)
        for kind in ("auto", "fp8")
    ]
    forwards = [ledger(profile, each, H100, version()) for each in asked]
    fresh = replace(profile, source="asked/backwards")
    backwards = [ledger(fresh, each, H100, version()) for each in reversed(asked)]
    assert forwards == backwards[::-1]
    assert len(set(map(str, forwards))) >= len(asked) // 2
