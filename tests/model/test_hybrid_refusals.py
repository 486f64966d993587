"""What hybrid configurations leave out, get wrong, or ask for that is not sized."""

from __future__ import annotations

from typing import Any

import pytest

from stowage.api.refusal import Refusal
from stowage.memory.constraints import check_parallelism
from stowage.model.config_json import read_profile
from stowage.model.profile import StateProfile
from tests.model.support import config_of, profile_of, published, summary_of

JAMBA = "ai21labs--AI21-Jamba-1.5-Mini"
NEMOTRON = "nvidia--NVIDIA-Nemotron-3-Nano-30B-A3B-BF16"
GRANITE = "ibm-granite--granite-4.0-h-small"
FALCON_H1 = "tiiuae--Falcon-H1-7B-Instruct"
FALCON_MAMBA = "tiiuae--falcon-mamba-7b"
MAMBA2 = "mistralai--Mamba-Codestral-7B-v0.1"
KIMI = "moonshotai--Kimi-Linear-48B-A3B-Instruct"
LFM = "LiquidAI--LFM2-1.2B"
NEXT = "Qwen--Qwen3-Next-80B-A3B-Instruct"
MINIMAX = "MiniMaxAI--MiniMax-Text-01"
ZAMBA = "Zyphra--Zamba2-7B-Instruct"


@pytest.mark.parametrize(
    ("folder", "changes", "words"),
    [
        pytest.param(NEMOTRON, {"hybrid_override_pattern": "MXM"}, "MXM", id="an unknown letter in the pattern"),
        pytest.param(NEMOTRON, {"hybrid_override_pattern": None}, "layers_block_type", id="no pattern at all"),
        pytest.param(NEMOTRON, {"layers_block_type": ["mamba", "rnn"]}, "layers_block_type", id="an unknown word"),
        pytest.param(NEMOTRON, {"mamba_ssm_cache_dtype": "int8"}, "int8", id="a state dtype nobody knows"),
        pytest.param(NEMOTRON, {"block_configs": [{}]}, "block_configs", id="each layer with sizes of its own"),
        pytest.param(GRANITE, {"mamba_d_head": 32}, "mamba_n_heads: 128", id="heads that do not fill the inner size"),
        pytest.param(GRANITE, {"num_hidden_layers": 39}, "40 layers", id="kinds for another number of layers"),
        pytest.param(GRANITE, {"hidden_act": "gelu"}, "gelu", id="an activation that is not served"),
        pytest.param(MAMBA2, {"num_heads": 64}, "num_heads: 64", id="Mamba 2 heads that do not fill it"),
        pytest.param(NEXT, {"layer_types": ["full_attention"]}, "fewer than 12", id="too few layer kinds"),
        pytest.param(NEXT, {"layer_types": ["mamba"] * 12}, "layer_types", id="kinds of another family"),
        pytest.param(KIMI, {"mla_use_nope": False}, "mla_use_nope", id="Kimi-Linear with rotation"),
        pytest.param(KIMI, {"q_lora_rank": 1536}, "q_lora_rank", id="what only Kimi-K3 has"),
        pytest.param(MINIMAX, {"attn_type_list": [2] * 80}, "attn_type_list", id="an attention type nobody knows"),
        pytest.param(MINIMAX, {"shared_intermediate_size": 512}, "shared_intermediate_size", id="a shared expert"),
        pytest.param(ZAMBA, {"num_attention_heads": 31}, "31", id="heads that do not divide twice the hidden size"),
        pytest.param(JAMBA, {"num_key_value_heads": 7}, "num_key_value_heads: 7", id="kv heads that do not divide"),
        pytest.param(LFM, {"block_ffn_dim_multiplier": -1}, "block_ffn_dim_multiplier", id="a negative factor"),
    ],
)  # fmt: skip
def test_wrong_fields_are_named(folder: str, changes: dict[str, Any], words: str) -> None:
    answer = read_profile(summary_of({**config_of(folder), **changes}))
    assert isinstance(answer, Refusal)
    assert words in answer.message


@pytest.mark.parametrize(
    ("folder", "ranks", "words"),
    [
        pytest.param(NEMOTRON, 16, "8 groups", id="several groups are not replicated"),
        pytest.param(FALCON_H1, 16, "heads", id="heads of the mixer or of attention"),
        pytest.param(NEXT, 5, "32 heads of the recurrent", id="value heads of a delta net"),
        pytest.param(FALCON_MAMBA, 3, "inner size of 8192", id="the inner size of Mamba 1"),
        pytest.param(KIMI, 3, "32", id="heads of KDA"),
    ],
)
def test_ranks_that_do_not_divide_recurrent_layers(folder: str, ranks: int, words: str) -> None:
    refusal = check_parallelism(published(folder), ranks, 1)
    assert isinstance(refusal, Refusal)
    assert words in refusal.message


def test_a_single_group_does_not_limit_the_ranks() -> None:
    assert check_parallelism(published(GRANITE), 8, 1) is None


@pytest.mark.parametrize(
    ("folder", "absent", "field", "value"),
    [
        pytest.param(JAMBA, "mamba_dt_rank", "num_layers", 32, id="Jamba's time step rank is derived"),
        pytest.param(NEXT, "layer_types", "num_layers", 12, id="Qwen3-Next attends in every fourth layer"),
        pytest.param(GRANITE, "max_position_embeddings", "max_model_len", 2048, id="a class default for the context"),
        pytest.param(FALCON_H1, "vocab_size", "vocab_size", 128000, id="a class default for the vocabulary"),
    ],
)  # fmt: skip
def test_absent_fields_mean_what_the_class_says(folder: str, absent: str, field: str, value: int) -> None:
    config = config_of(folder)
    config.pop(absent, None)
    assert getattr(profile_of(config), field) == value


def test_an_inner_size_of_null_is_the_expanded_hidden_size() -> None:
    config = {**config_of(FALCON_H1), "mamba_d_ssm": None, "mamba_d_head": "auto"}
    state = profile_of(config).layers[0].mixers[1]
    assert isinstance(state, StateProfile)
    assert state.inner_size == 2 * 3072


def test_tokens_that_a_kernel_takes_at_a_time_are_read() -> None:
    states = [published(folder).layers[0].mixers[-1] for folder in (GRANITE, NEMOTRON, JAMBA)]
    assert [state.chunk_size for state in states if isinstance(state, StateProfile)] == [256, 128, 0]
