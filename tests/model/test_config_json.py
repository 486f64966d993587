"""From config.json to a profile: supported families, everything else refused with a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from stowage.api.refusal import Refusal
from stowage.model.config_json import read_profile
from stowage.model.profile import MlpProfile
from tests.model.support import TINY, attention_of, config_of, profile_of, published, summary_of


def refused(config: dict[str, Any]) -> Refusal:
    answer = read_profile(summary_of(config))
    assert isinstance(answer, Refusal)
    return answer


@pytest.mark.parametrize(
    ("folder", "heads", "kv_heads", "head_dim", "layers", "context"),
    [
        pytest.param(
            "meta-llama--Llama-3.1-8B-Instruct", 32, 8, 128, 32, 131072, id="Llama 3.1 has grouped heads"
        ),
        pytest.param(
            "meta-llama--Llama-2-7b-chat-hf", 32, 32, 128, 32, 4096, id="Llama 2 has as many kv heads"
        ),
        pytest.param("Qwen--Qwen2.5-7B-Instruct", 28, 4, 128, 28, 32768, id="Qwen2.5 derives its head size"),
        pytest.param(
            "Qwen--Qwen3-0.6B", 16, 8, 128, 28, 40960, id="Qwen3 states a head size beyond hidden/heads"
        ),
        pytest.param("microsoft--phi-4", 40, 10, 128, 40, 16384, id="phi-4 has ten kv heads"),
        pytest.param(
            "mistralai--Mistral-7B-Instruct-v0.3", 32, 8, 128, 32, 32768, id="Mistral reads like Llama"
        ),
    ],
)
def test_published_shapes_are_read(
    folder: str, heads: int, kv_heads: int, head_dim: int, layers: int, context: int
) -> None:
    profile = published(folder)
    attention = attention_of(profile)
    assert (attention.num_heads, attention.num_kv_heads, attention.head_dim) == (heads, kv_heads, head_dim)
    assert profile.num_layers == layers
    assert profile.max_model_len == context


@pytest.mark.parametrize(
    ("folder", "qkv_bias", "qk_norm", "tied"),
    [
        pytest.param(
            "Qwen--Qwen2.5-7B-Instruct", True, False, False, id="Qwen2 always has biases on q, k, v"
        ),
        pytest.param("Qwen--Qwen3-0.6B", False, True, True, id="Qwen3 normalises heads and ties embeddings"),
        pytest.param("meta-llama--Llama-3.1-8B-Instruct", False, False, False, id="Llama has neither"),
    ],
)
def test_family_traits_are_read(folder: str, qkv_bias: bool, qk_norm: bool, tied: bool) -> None:
    profile = published(folder)
    attention = attention_of(profile)
    assert (attention.qkv_bias, attention.qk_norm) == (qkv_bias, qk_norm)
    assert attention.output_bias is False
    assert profile.tie_word_embeddings is tied


def test_llama_biases_come_from_the_configuration() -> None:
    attention = attention_of(profile_of(TINY, attention_bias=True))
    assert (attention.qkv_bias, attention.output_bias) == (True, True)
    attention = attention_of(profile_of(TINY, attention_bias=True, qkv_bias=False))
    assert (attention.qkv_bias, attention.output_bias) == (False, True)
    feed_forward = profile_of(TINY, mlp_bias=True).layers[0].feed_forward
    assert isinstance(feed_forward, MlpProfile)
    assert feed_forward.bias


def test_absent_fields_take_the_defaults_of_the_family() -> None:
    qwen = {k: v for k, v in TINY.items() if k != "num_key_value_heads"}
    qwen |= {"architectures": ["Qwen3ForCausalLM"], "num_attention_heads": 32}
    attention = attention_of(profile_of(qwen))
    assert (attention.num_kv_heads, attention.head_dim) == (32, 128)
    mistral = {**TINY, "architectures": ["MistralForCausalLM"], "model_type": "mistral"}
    assert attention_of(profile_of(mistral)).sliding_window == 4096


@pytest.mark.parametrize(
    ("changes", "window"),
    [
        pytest.param({"sliding_window": 1024}, 1024, id="a plain window holds for all layers"),
        pytest.param({"sliding_window": None}, None, id="null means no window"),
        pytest.param({"sliding_window": 0}, None, id="zero means no window"),
        pytest.param(
            {"sliding_window": 64, "layer_types": ["full_attention"] * 4}, None, id="layer types can say full"
        ),
        pytest.param(
            {"sliding_window": 64, "layer_types": ["sliding_attention"] * 4},
            64,
            id="layer types can say sliding",
        ),
        pytest.param(
            {"architectures": ["Qwen2ForCausalLM"], "sliding_window": 64, "use_sliding_window": False},
            None,
            id="Qwen ignores a window that is switched off",
        ),
        pytest.param(
            {
                "architectures": ["Qwen2ForCausalLM"],
                "sliding_window": 64,
                "use_sliding_window": True,
                "max_window_layers": 0,
            },
            64,
            id="Qwen windows from layer zero on are for all layers",
        ),
        pytest.param(
            {
                "architectures": ["Qwen2ForCausalLM"],
                "sliding_window": 64,
                "use_sliding_window": True,
                "max_window_layers": 4,
            },
            None,
            id="Qwen windows from beyond the last layer are for none",
        ),
    ],
)
def test_sliding_windows(changes: dict[str, Any], window: int | None) -> None:
    assert attention_of(profile_of(TINY, **changes)).sliding_window == window


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        pytest.param(
            {"architectures": ["NoSuchForCausalLM"]},
            "UnsupportedArchitecture",
            "NoSuchForCausalLM",
            id="an architecture nobody knows is refused by name",
        ),
        pytest.param(
            {"architectures": ["MixtralForCausalLM"]},
            "InvalidModelConfig",
            "num_local_experts",
            id="experts without their number",
        ),
        pytest.param(
            {"architectures": ["NobodyKnowsForCausalLM"]},
            "UnsupportedArchitecture",
            "NobodyKnowsForCausalLM",
            id="an architecture that nobody knows is refused by name",
        ),
        pytest.param(
            {"architectures": []}, "InvalidModelConfig", "architectures", id="no architecture at all"
        ),
        pytest.param(
            {"architectures": None}, "InvalidModelConfig", "architectures", id="a null architecture"
        ),
        pytest.param(
            {"quantization_config": {"quant_method": "eetq", "bits": 8}},
            "UnsupportedQuantization",
            "eetq",
            id="a quantised checkpoint names its method",
        ),
        pytest.param(
            {"compression_config": {"format": "x"}},
            "UnsupportedQuantization",
            "compression",
            id="compressed tensors",
        ),
        pytest.param(
            {"architectures": ["Qwen2ForCausalLM"], "use_sliding_window": True, "max_window_layers": 2},
            "UnsupportedArchitecture",
            "sliding window",
            id="mixed windows are refused",
        ),
        pytest.param({"is_causal": False}, "UnsupportedArchitecture", "is_causal", id="bidirectional models"),
        pytest.param({"hidden_act": "gelu"}, "UnsupportedArchitecture", "gelu", id="another activation"),
        pytest.param(
            {"dual_chunk_attention_config": {"chunk_size": 1}},
            "UnsupportedArchitecture",
            "dual_chunk",
            id="dual chunk attention",
        ),
        pytest.param(
            {"hidden_size": None}, "InvalidModelConfig", "hidden_size", id="a missing field is named"
        ),
        pytest.param(
            {"hidden_size": "256"}, "InvalidModelConfig", '"256"', id="a wrong type shows the value"
        ),
        pytest.param({"num_hidden_layers": 0}, "InvalidModelConfig", "num_hidden_layers", id="zero layers"),
        pytest.param({"hidden_size": True}, "InvalidModelConfig", "hidden_size", id="true is not a number"),
        pytest.param(
            {"num_key_value_heads": 3},
            "InvalidModelConfig",
            "num_key_value_heads",
            id="kv heads that do not divide",
        ),
        pytest.param({"hidden_size": 250}, "InvalidModelConfig", "multiple", id="heads that do not divide"),
        pytest.param(
            {"tie_word_embeddings": "no"}, "InvalidModelConfig", "tie_word", id="a flag that is a word"
        ),
        pytest.param({"torch_dtype": "float8_e4m3fn"}, "InvalidModelConfig", "float8", id="an unknown dtype"),
        pytest.param(
            {"layer_types": "all", "sliding_window": 64},
            "InvalidModelConfig",
            "layer_types",
            id="layer types that are no list",
        ),
        pytest.param(
            {"rope_scaling": [1]}, "InvalidModelConfig", "rope_scaling", id="rope scaling that is a list"
        ),
        pytest.param(
            {"rope_scaling": {"type": "linear"}},
            "InvalidModelConfig",
            "factor",
            id="linear scaling without factor",
        ),
    ],
)
def test_what_is_not_understood_is_refused(changes: dict[str, Any], reason: str, words: str) -> None:
    refusal = refused({**TINY, **changes})
    assert refusal.reason.value == reason
    assert words in refusal.sentence
    assert refusal.sentence.endswith(".")


@pytest.mark.parametrize(
    ("changes", "runs", "stored"),
    [
        pytest.param({"torch_dtype": "bfloat16"}, "bfloat16", "bfloat16", id="bfloat16 stays"),
        pytest.param({"torch_dtype": "float16"}, "float16", "float16", id="float16 stays"),
        pytest.param(
            {"torch_dtype": "float32"}, "bfloat16", "float32", id="32-bit checkpoints run in bfloat16"
        ),
        pytest.param(
            {"dtype": "float16", "torch_dtype": None}, "float16", "float16", id="the newer field name"
        ),
        pytest.param({"torch_dtype": None}, "bfloat16", "float32", id="nothing stated counts as 32 bits"),
    ],
)
def test_dtypes(changes: dict[str, Any], runs: str, stored: str) -> None:
    profile = profile_of(TINY, **changes)
    assert (profile.dtype, profile.checkpoint_dtype) == (runs, stored)


def test_profiles_of_the_same_model_are_equal_and_hash_alike() -> None:
    config = config_of("Qwen--Qwen3-0.6B")
    first, second = profile_of(config), profile_of(config)
    assert first == second
    assert hash(first) == hash(second)
    assert first != profile_of(config, vocab_size=1000)


def test_equal_checkpoints_give_the_same_object() -> None:
    """What is remembered of a profile is then found without comparing its tensors."""
    config = config_of("meta-llama--Llama-3.1-8B-Instruct")
    first, second = (read_profile(summary_of(dict(config))) for _ in range(2))
    assert first is second
    assert read_profile(summary_of({**config, "num_hidden_layers": 16})) != first
