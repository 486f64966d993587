"""Weights and KV bytes per token beside those of aiconfigurator-core, for every published model that it carries.

Both sides get the same config.json, the same tensor parallelism and bfloat16 keys and values (aiconfigurator-core
would take fp8 for every fp8 or fp4 checkpoint, the engine does not). It sums operations rather than tensors, so
norms, scales and buffers are missing and a few per cent are expected; whatever differs by more than a tenth stands
in a table with its reason, and must go on differing by just that factor. Weights are compared as they are loaded,
without what kernels of a GPU pad, and whether a layout starts at all is no matter here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final

import pytest
from aiconfigurator_core.sdk.common import DefaultHFModels
from aiconfigurator_core.sdk.config_builders import build_model_config
from aiconfigurator_core.sdk.models import get_model

from stowage.api.refusal import Refusal
from stowage.memory.layout import RankLayout
from stowage.memory.rank import rank_terms
from stowage.memory.setting import Setting
from stowage.memory.weights import rank_weights
from stowage.model.config_json import read_profile
from stowage.model.profile import ModelProfile
from stowage_runtime.contract import summarize
from tests.memory.support import B200, shape, version

RANKS: Final = (1, 8)
TOLERANCE: Final = 0.1
LENGTH: Final = 32_768
"""Growth is measured between this context and twice as much, beyond every window."""

HEAD_TWICE: Final = "it counts the output head besides the embedding that the model ties it to"
WHOLE_EMBEDDING: Final = "it keeps the whole embedding on every rank, where the engine splits the vocabulary"
WHOLE_AND_TWICE: Final = f"{WHOLE_EMBEDDING}; {HEAD_TWICE}; it has no vision tower"
NO_HEAD_NO_SCALES: Final = "it leaves out the output head and the scales of MXFP4"
EXPERTS_UNQUANTISED: Final = "it takes 16 bits for experts that the checkpoint stores in NVFP4"
EVERY_LAYER: Final = "it gives Mamba, MLP and expert layers a KV cache like that of the few attention layers"
NO_WINDOWS: Final = "it lets windowed or chunked layers grow with the context like the full ones"
NO_WINDOWS_WIDE: Final = f"{NO_WINDOWS}, and takes values to be as wide as keys"
NO_INDEXER: Final = "it leaves out the keys that the indexer keeps in sparse layers"
NARROW_VECTORS: Final = (
    "it takes 8 bits for rotary elements instead of 16, 4 for the indexer's keys, and no scales"
)
NO_KV: Final = "it knows no KV heads of a model whose layers were searched one by one, and answers 0"

COMPRESSED: Final = (
    "deepseek-ai/DeepSeek-V4-Flash",
    "deepseek-ai/DeepSeek-V4-Pro",
    "nvidia/DeepSeek-V4-Flash-NVFP4",
    "nvidia/DeepSeek-V4-Pro-NVFP4",
    "sgl-project/DeepSeek-V4-Flash-FP8",
    "sgl-project/DeepSeek-V4-Pro-FP8",
)

EXPLAINED: Final[Mapping[tuple[str, str, int], tuple[float, str]]] = {
    # (model, quantity, ranks): (aiconfigurator-core over Stowage, why)
    ("Qwen/Qwen3-0.6B", "weights", 1): (1.250, HEAD_TWICE),
    ("Qwen/Qwen3-0.6B", "weights", 8): (1.177, HEAD_TWICE),
    ("Qwen/Qwen3-1.7B", "weights", 1): (1.177, HEAD_TWICE),
    ("Qwen/Qwen3-1.7B", "weights", 8): (1.152, HEAD_TWICE),
    ("Qwen/Qwen3-VL-2B-Instruct", "weights", 1): (1.126, HEAD_TWICE),
    ("XiaomiMiMo/MiMo-V2-Flash", "kv", 1): (6.4, NO_WINDOWS_WIDE),
    ("XiaomiMiMo/MiMo-V2-Flash", "kv", 8): (6.4, NO_WINDOWS_WIDE),
    ("meta-llama/Llama-4-Maverick-17B-128E-Instruct", "kv", 1): (4.0, NO_WINDOWS),
    ("meta-llama/Llama-4-Maverick-17B-128E-Instruct", "kv", 8): (4.0, NO_WINDOWS),
    ("meta-llama/Llama-4-Scout-17B-16E-Instruct", "kv", 1): (4.0, NO_WINDOWS),
    ("meta-llama/Llama-4-Scout-17B-16E-Instruct", "kv", 8): (4.0, NO_WINDOWS),
    ("nvidia/Gemma-4-26B-A4B-NVFP4", "weights", 1): (2.703, EXPERTS_UNQUANTISED),
    ("nvidia/Gemma-4-26B-A4B-NVFP4", "weights", 8): (2.060, EXPERTS_UNQUANTISED),
    ("nvidia/Gemma-4-31B-IT-NVFP4", "weights", 8): (1.216, WHOLE_AND_TWICE),
    ("nvidia/Llama-3_3-Nemotron-Super-49B-v1", "weights", 8): (1.144, WHOLE_EMBEDDING),
    ("nvidia/Llama-3_3-Nemotron-Super-49B-v1", "kv", 1): (0.0, NO_KV),
    ("nvidia/Llama-3_3-Nemotron-Super-49B-v1", "kv", 8): (0.0, NO_KV),
    ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "kv", 1): (8.667, EVERY_LAYER),
    ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "kv", 8): (8.667, EVERY_LAYER),
    ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-NVFP4", "weights", 8): (1.217, WHOLE_EMBEDDING),
    ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-NVFP4", "kv", 1): (8.667, EVERY_LAYER),
    ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-NVFP4", "kv", 8): (8.667, EVERY_LAYER),
    ("nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-FP8", "kv", 1): (11.0, EVERY_LAYER),
    ("nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-FP8", "kv", 8): (11.0, EVERY_LAYER),
    ("nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-NVFP4", "kv", 1): (11.0, EVERY_LAYER),
    ("nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-NVFP4", "kv", 8): (11.0, EVERY_LAYER),
    ("nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16", "kv", 1): (9.0, EVERY_LAYER),
    ("nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16", "kv", 8): (9.0, EVERY_LAYER),
    ("nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-FP8", "kv", 1): (9.0, EVERY_LAYER),
    ("nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-FP8", "kv", 8): (9.0, EVERY_LAYER),
    ("nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-NVFP4", "kv", 1): (9.0, EVERY_LAYER),
    ("nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-NVFP4", "kv", 8): (9.0, EVERY_LAYER),
    ("nvidia/NVIDIA-Nemotron-3.5-Lightning-30B-A3B-NVFP4", "weights", 8): (1.281, WHOLE_EMBEDDING),
    ("nvidia/NVIDIA-Nemotron-3.5-Lightning-30B-A3B-NVFP4", "kv", 1): (8.667, EVERY_LAYER),
    ("nvidia/NVIDIA-Nemotron-3.5-Lightning-30B-A3B-NVFP4", "kv", 8): (8.667, EVERY_LAYER),
    ("nvidia/Nemotron-H-56B-Base-8K", "weights", 8): (1.133, WHOLE_EMBEDDING),
    ("nvidia/Nemotron-H-56B-Base-8K", "kv", 1): (11.8, EVERY_LAYER),
    ("nvidia/Nemotron-H-56B-Base-8K", "kv", 8): (11.8, EVERY_LAYER),
    ("nvidia/MiniMax-M3-NVFP4", "kv", 1): (0.894, NO_INDEXER),
    ("nvidia/MiniMax-M3-NVFP4", "kv", 8): (0.678, NO_INDEXER),
    ("openai/gpt-oss-20b", "weights", 1): (0.869, NO_HEAD_NO_SCALES),
    ("openai/gpt-oss-20b", "weights", 8): (0.853, NO_HEAD_NO_SCALES),
    **{(model, "kv", ranks): (0.793, NARROW_VECTORS) for model in COMPRESSED for ranks in RANKS},
}

NOT_ASKED: Final[Mapping[tuple[str, int], str]] = {
    # (model, ranks): the sentence, or its start, of the side that refuses
    ("MiniMaxAI/MiniMax-M2.5", 8): "aiconfigurator-core: Invalid quantized MoE configuration",
    ("MiniMaxAI/MiniMax-M2.7", 8): "aiconfigurator-core: Invalid quantized MoE configuration",
    ("Qwen/Qwen3-235B-A22B-FP8", 8): "aiconfigurator-core: Invalid quantized MoE configuration",
    ("Qwen/Qwen3-30B-A3B-FP8", 8): "aiconfigurator-core: Invalid quantized MoE configuration",
    **{
        (model, ranks): f"Stowage: The architecture {architecture} is not supported"
        for model, architecture in (
            ("MiniMaxAI/MiniMax-M3", "MiniMaxM3ForCausalLM"),
            ("stepfun-ai/Step-3.7-Flash", "Step3p7FlashForCausalLM"),
            ("stepfun-ai/Step-3.7-Flash-FP8", "Step3p7FlashForCausalLM"),
        )
        for ranks in RANKS
    },
    **{
        (model, ranks): f"Stowage: {sentence}"
        for model, sentence in (
            ("moonshotai/Kimi-K3", "The model has layers that are not attention (linear_attn_config)"),
        )
        for ranks in RANKS
    },
}

COMPARED: Final = [
    (model, ranks) for model in sorted(DefaultHFModels) for ranks in RANKS if (model, ranks) not in NOT_ASKED
]


def _file(model: str, name: str) -> dict[str, Any] | None:
    path = files("aiconfigurator_core") / "model_configs" / f"{model.replace('/', '--')}_{name}"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


@cache
def _profile(model: str) -> ModelProfile | Refusal:
    config = _file(model, "config.json")
    assert config is not None
    sidecar = _file(model, "hf_quant_config.json")
    summary = summarize({}, source="hf://test/model", revision="0" * 40, config=config, quantization=sidecar)
    return read_profile(summary)


def _kv_dtype(model: str) -> str:
    """Give the format of the cache that both are asked for: 16 bits, unless the engine takes 8 alone."""
    config = _file(model, "config.json") or {}
    return "fp8" if "DeepseekV4ForCausalLM" in config["architectures"] else "bfloat16"


def _theirs(model: str, ranks: int) -> dict[str, float]:
    parallel = {
        "tp_size": ranks,
        "pp_size": 1,
        "attention_dp_size": 1,
        "moe_tp_size": ranks,
        "moe_ep_size": 1,
    }
    config = build_model_config(**parallel, kvcache_quant_mode=_kv_dtype(model), enable_encoder_dp=False)
    built = get_model(model, config, "vllm")
    longer, shorter = (built.get_kvcache_bytes_per_sequence(size) for size in (2 * LENGTH, LENGTH))
    operations = (*built.context_ops, *built.encoder_ops)
    return {"weights": sum(each.get_weights() for each in operations), "kv": (longer - shorter) / LENGTH}


def _ours(profile: ModelProfile, ranks: int, kv_dtype: str) -> dict[str, float]:
    asked = shape(tensor_parallel_size=ranks, kv_cache_dtype=kv_dtype)
    pool = rank_terms(Setting(profile, asked, B200, version()), 0).pool
    weights = rank_weights(profile, RankLayout(ranks, 1, 0), profile.dtype)
    return {"weights": weights.tensor_bytes, "kv": pool.bytes_per_token}


def _reasons(model: str, ranks: int) -> Iterator[str]:
    """Give what each side says that does not answer."""
    profile = _profile(model)
    if isinstance(profile, Refusal):
        yield f"Stowage: {profile.message}"
    elif profile.weight_band:
        yield f"Stowage: {' '.join(profile.notes)}"
    try:
        _theirs(model, ranks)
    except ValueError as problem:
        yield f"aiconfigurator-core: {problem}"


def test_tables_speak_of_models_that_are_carried() -> None:
    assert {(model, ranks) for model, _, ranks in EXPLAINED} <= set(COMPARED)
    assert {model for model, _ in NOT_ASKED} <= set(DefaultHFModels)
    assert len(COMPARED) > 140


@pytest.mark.parametrize(
    ("model", "ranks"), [pytest.param(*key, id=f"{key[0]} on {key[1]}") for key in COMPARED]
)
def test_both_agree_or_the_reason_is_known(model: str, ranks: int) -> None:
    profile = _profile(model)
    assert isinstance(profile, ModelProfile), profile
    theirs, ours = _theirs(model, ranks), _ours(profile, ranks, _kv_dtype(model))
    for quantity, value in ours.items():
        factor, reason = EXPLAINED.get((model, quantity, ranks), (1.0, ""))
        found = theirs[quantity] / value
        if not reason:
            assert found == pytest.approx(1.0, abs=TOLERANCE), f"{quantity}: not explained"
        else:
            assert abs(factor - 1) > TOLERANCE, f"{quantity}: nothing to explain"
            assert found == pytest.approx(factor, rel=0.01), f"{quantity}: not as explained ({reason})"


@pytest.mark.parametrize(
    ("model", "ranks"), [pytest.param(*key, id=f"{key[0]} on {key[1]}") for key in NOT_ASKED]
)
def test_who_does_not_answer_says_why(model: str, ranks: int) -> None:
    assert any(reason.startswith(NOT_ASKED[model, ranks]) for reason in _reasons(model, ranks))
