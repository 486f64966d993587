"""The real engine, started on tiny models of every kind of layer: what it holds and reports is what the ledger says.

vLLM's CPU build starts all of them one after the other in one process (oracle/real_engine.py). Bytes of parameters
and buffers, blocks, tokens and concurrency must be equal. Two facts of the CPU are taken from outside: the block of
latent attention is 16 tokens or, on processors with AMX, 128; and recurrent states are kept in float32 where the
processor has AVX512-BF16, so hybrids that name no format of their own are asked with float32 on every machine.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stowage.memory.layout import RankLayout
from stowage.memory.weights import rank_tensors, rank_weights
from stowage.model.profile import ModelProfile, StateProfile
from tests.memory.support import MIB, NODE, ledger_of
from tests.model.support import profile_of

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        "STOWAGE_VLLM_ENV" not in os.environ,
        reason="STOWAGE_VLLM_ENV names no environment of vLLM: `make test` makes one and sets it",
    ),
]

SCRIPT = Path(__file__).parent / "oracle" / "real_engine.py"
ARGUMENTS: Mapping[str, Any] = {
    "max_model_len": 1024,
    "max_num_seqs": 4,
    "max_num_batched_tokens": 448,
    "kv_cache_memory_bytes": 33 * MIB + 12_345,
}
_COMMON: Mapping[str, Any] = {
    "hidden_act": "silu",
    "hidden_size": 128,
    "intermediate_size": 192,
    "max_position_embeddings": 1024,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 500,
}
_MOE: Mapping[str, Any] = {
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "moe_intermediate_size": 64,
    "norm_topk_prob": True,
    "num_experts": 4,
    "num_experts_per_tok": 2,
}
_DELTA_NET: Mapping[str, Any] = {
    "full_attention_interval": 4,
    "head_dim": 64,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_value_head_dim": 32,
    "num_hidden_layers": 4,
    "partial_rotary_factor": 0.25,
}
_LATENT: Mapping[str, Any] = {
    "first_k_dense_replace": 1,
    "kv_lora_rank": 512,
    "moe_intermediate_size": 64,
    "moe_layer_freq": 1,
    "n_group": 1,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "num_key_value_heads": 4,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "routed_scaling_factor": 1.0,
    "topk_group": 1,
    "v_head_dim": 128,
}


def _config(architecture: str, model_type: str, *parts: Mapping[str, Any], **own: Any) -> dict[str, Any]:
    config: dict[str, Any] = {**_COMMON, "architectures": [architecture], "model_type": model_type}
    for part in parts:
        config |= part
    return config | own


MODELS: Mapping[str, dict[str, Any]] = {
    "Llama": _config("LlamaForCausalLM", "llama", attention_bias=True),
    "Qwen3 with a tied embedding": _config(
        "Qwen3ForCausalLM", "qwen3", head_dim=64, tie_word_embeddings=True
    ),
    "Gemma 3 with five windows for one full layer": _config(
        "Gemma3ForCausalLM",
        "gemma3_text",
        head_dim=64,
        hidden_activation="gelu_pytorch_tanh",
        num_hidden_layers=7,
        query_pre_attn_scalar=64,
        rope_local_base_freq=10_000,
        rope_theta=1_000_000,
        sliding_window=128,
        sliding_window_pattern=6,
        tie_word_embeddings=True,
    ),
    "Mixtral": _config("MixtralForCausalLM", "mixtral", num_experts_per_tok=2, num_local_experts=4),
    "Qwen3 MoE": _config("Qwen3MoeForCausalLM", "qwen3_moe", _MOE, head_dim=64),
    "DeepSeek V2 without a query rank": _config(
        "DeepseekV2ForCausalLM",
        "deepseek_v2",
        _LATENT,
        norm_topk_prob=False,
        q_lora_rank=None,
        scoring_func="softmax",
        topk_method="greedy",
    ),
    "DeepSeek V3": _config(
        "DeepseekV3ForCausalLM",
        "deepseek_v3",
        _LATENT,
        norm_topk_prob=True,
        num_nextn_predict_layers=1,
        q_lora_rank=96,
        scoring_func="sigmoid",
        topk_method="noaux_tc",
    ),
    "Qwen3-Next, gated delta net and attention": _config(
        "Qwen3NextForCausalLM", "qwen3_next", _DELTA_NET, _MOE, shared_expert_intermediate_size=64
    ),
    "Nemotron-H, Mamba 2 and attention": _config(
        "NemotronHForCausalLM",
        "nemotron_h",
        attention_head_dim=32,
        chunk_size=128,
        conv_kernel=4,
        head_dim=32,
        hybrid_override_pattern="M-M*-",
        layer_norm_epsilon=1e-5,
        mamba_head_dim=32,
        mamba_hidden_act="silu",
        mamba_num_heads=8,
        mamba_proj_bias=False,
        mamba_ssm_cache_dtype="float32",
        mlp_bias=False,
        mlp_hidden_act="relu2",
        n_groups=2,
        num_hidden_layers=5,
        ssm_state_size=64,
        use_bias=False,
        use_conv_bias=True,
    ),
    "Granite 4, Mamba 2 and attention": _config(
        "GraniteMoeHybridForCausalLM",
        "granitemoehybrid",
        attention_bias=False,
        attention_multiplier=0.1,
        embedding_multiplier=1.0,
        layer_types=["mamba", "attention"],
        logits_scaling=1.0,
        mamba_chunk_size=256,
        mamba_conv_bias=True,
        mamba_d_conv=4,
        mamba_d_head=32,
        mamba_d_state=32,
        mamba_expand=2,
        mamba_n_groups=1,
        mamba_n_heads=8,
        mamba_proj_bias=False,
        normalization_function="rmsnorm",
        num_experts_per_tok=0,
        num_local_experts=0,
        position_embedding_type="nope",
        residual_multiplier=1.0,
        shared_intermediate_size=256,
    ),
    "Jamba, Mamba 1, attention and experts": _config(
        "JambaForCausalLM",
        "jamba",
        attn_layer_offset=1,
        attn_layer_period=2,
        expert_layer_offset=1,
        expert_layer_period=2,
        mamba_conv_bias=True,
        mamba_d_conv=4,
        mamba_d_state=16,
        mamba_dt_rank=8,
        mamba_expand=2,
        mamba_proj_bias=False,
        num_experts=2,
        num_experts_per_tok=1,
    ),
}


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the real engine answered for each model, by name."""
    cases = tmp_path_factory.mktemp("engines") / "cases.json"
    arguments = {**ARGUMENTS, "mamba_ssm_cache_dtype": "float32"}
    asked = [{"name": name, "config": config, "arguments": arguments} for name, config in MODELS.items()]
    cases.write_text(json.dumps(asked), encoding="utf-8")
    python = Path(os.environ["STOWAGE_VLLM_ENV"]) / "bin" / "python"
    environment = {
        key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")
    }
    done = subprocess.run(
        [str(python), str(SCRIPT), str(cases)], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return {answer["name"]: answer for answer in _answers(done.stdout)}


def _answers(output: str) -> Iterator[dict[str, Any]]:
    for line in output.splitlines():
        if line.startswith("ANSWER "):
            yield json.loads(line.removeprefix("ANSWER "))


def _with_float32_states(profile: ModelProfile) -> ModelProfile:
    """Give the profile as `--mamba-ssm-cache-dtype float32` makes it."""
    layers = tuple(
        replace(
            layer,
            mixers=tuple(
                replace(mixer, state_dtype="float32") if isinstance(mixer, StateProfile) else mixer
                for mixer in layer.mixers
            ),
        )
        for layer in profile.layers
    )
    return replace(profile, layers=layers)


@pytest.mark.parametrize("name", MODELS)
def test_a_started_engine_holds_and_reports_what_the_ledger_says(
    name: str, engines: dict[str, dict[str, Any]]
) -> None:
    engine, profile = engines[name], _with_float32_states(profile_of(MODELS[name]))
    assert "problem" not in engine, engine["problem"]
    assert engine["vllm"] == "0.32.0"

    layout = RankLayout(1, 1, 0)
    assert rank_weights(profile, layout, "bfloat16").tensor_bytes == engine["bytes"]
    assert len(list(rank_tensors(profile, layout))) == engine["tensors"]

    latent_block = engine["block_size"] if "kv_lora_rank" in MODELS[name] else None
    assert latent_block in (None, 16, 128)
    entry = ledger_of(profile, NODE, enforce_eager=True, block_size=latent_block, **ARGUMENTS)
    assert entry.weights_bytes == engine["bytes"]
    assert (entry.block_size, entry.num_gpu_blocks) == (engine["block_size"], engine["num_blocks"])
    assert entry.kv_tokens == engine["kv_tokens"]
    assert entry.max_concurrency == pytest.approx(engine["max_concurrency"], rel=1e-12)
