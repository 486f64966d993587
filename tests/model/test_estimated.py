"""Architectures that nobody described: what they are read as, how far off that may be, and who is refused."""

from __future__ import annotations

from typing import Any

import pytest

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.memory.layout import RankLayout
from stowage.memory.weights import rank_weights
from stowage.model.architectures import ARCHITECTURES
from stowage.model.config_json import read_profile
from stowage.model.families.estimated import estimated_names
from stowage.model.known_total import with_total
from stowage.model.profile import AttentionProfile, LatentAttentionProfile, ModelProfile, MoeProfile
from tests.memory.support import H100, ledger_of
from tests.model.support import TINY, config_of, published, summary_of

SERVED = "MolmoForCausalLM"


def unknown(folder: str, **changes: Any) -> dict[str, Any]:
    """Give a published configuration under a name and a type that nobody knows."""
    return {**config_of(folder), "architectures": ["FooForCausalLM"], "model_type": "foo", **changes}


def guessed(config: dict[str, Any]) -> ModelProfile:
    profile = read_profile(summary_of(config), guess=True)
    assert isinstance(profile, ModelProfile), profile
    return profile


def weights(profile: ModelProfile, ranks: int = 1) -> int:
    return rank_weights(profile, RankLayout(ranks, 1, 0), "bfloat16").tensor_bytes


def test_no_architecture_is_both_known_and_estimated() -> None:
    assert not estimated_names() & ARCHITECTURES.keys()


def test_what_the_engine_does_not_serve_is_refused_unless_a_guess_is_asked_for() -> None:
    config = unknown("Qwen--Qwen3-32B")
    assert isinstance(read_profile(summary_of(config)), Refusal)
    assert guessed(config).weight_band > 0


def test_what_the_engine_serves_is_refused_without_headers() -> None:
    answer = read_profile(summary_of({**TINY, "architectures": [SERVED], "model_type": "molmo"}))
    assert isinstance(answer, Refusal)
    assert answer.reason is Reason.UNSUPPORTED_ARCHITECTURE
    assert "headers" in answer.hint


def test_with_headers_what_the_engine_serves_is_estimated_and_says_so() -> None:
    config = {**TINY, "architectures": [SERVED], "model_type": "molmo"}
    profile = read_profile(summary_of(config, {"model.wte.embedding": ("BF16", (32_000, 4_096))}))
    assert isinstance(profile, ModelProfile)
    assert profile.checkpoint_bytes == 32_000 * 4_096 * 2
    assert profile.architecture == SERVED
    assert any("not described tensor by tensor" in note for note in profile.notes)
    assert any("off" in note for note in profile.notes)


def test_known_architectures_carry_no_band() -> None:
    assert published("Qwen--Qwen3-32B").weight_band == 0


@pytest.mark.parametrize(
    ("folder", "share"),
    [
        pytest.param("meta-llama--Llama-3.1-8B-Instruct", 0.0001, id="a plain decoder is one"),
        pytest.param("Qwen--Qwen3-32B", 0.001, id="norms of heads are little"),
        pytest.param("EleutherAI--pythia-6.9b", 0.05, id="no gate, by its activation"),
        pytest.param("mistralai--Mixtral-8x7B-v0.1", 0.001, id="experts under the name num_local_experts"),
        pytest.param("zai-org--GLM-4.6", 0.02, id="shared experts and dense layers first"),
        pytest.param("Qwen--Qwen1.5-MoE-A2.7B", 0.001, id="a shared expert with a size of its own"),
        pytest.param("deepseek-ai--DeepSeek-V2-Lite", 0.01, id="latent attention"),
        pytest.param(
            "Qwen--Qwen3-Next-80B-A3B-Instruct", 0.001, id="linear attention, as the family that has it"
        ),
        pytest.param("ai21labs--AI21-Jamba-1.5-Mini", 0.001, id="states, as the family that has them"),
        pytest.param("llava-hf--llava-1.5-7b-hf", 0.01, id="a tower by its sizes"),
        pytest.param("Qwen--Qwen2-Audio-7B-Instruct", 0.01, id="a tower for sound"),
    ],
)
def test_an_estimate_is_near_what_the_model_really_holds(folder: str, share: float) -> None:
    true, estimate = weights(published(folder)), guessed(unknown(folder))
    assert weights(estimate) == pytest.approx(true, rel=share)
    assert abs(weights(estimate) - true) <= estimate.weight_band * true


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        pytest.param("Qwen--Qwen3-32B", AttentionProfile, id="grouped heads"),
        pytest.param("deepseek-ai--DeepSeek-V2-Lite", LatentAttentionProfile, id="one latent vector"),
    ],
)
def test_the_cache_follows_from_the_fields(folder: str, kind: type) -> None:
    true, estimate = published(folder), guessed(unknown(folder))
    assert isinstance(estimate.layers[0].mixers[0], kind)
    ours, theirs = (ledger_of(each, H100, "0.26.0", max_num_seqs=8) for each in (estimate, true))
    assert ours.kv_bytes_per_token == theirs.kv_bytes_per_token


def test_windows_are_those_of_layer_types() -> None:
    kinds = ["sliding_attention", "full_attention"] * 2
    profile = guessed({**TINY, "architectures": ["Foo"], "layer_types": kinds, "sliding_window": 128})
    windows = [layer.attention.sliding_window for layer in profile.layers if layer.attention]
    assert windows == [128, None, 128, None]


def test_a_text_part_that_is_known_by_its_type_is_read_exactly() -> None:
    text = {**TINY, "model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 2}
    text |= {"moe_intermediate_size": 64, "head_dim": 32, "architectures": None}
    vision = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128, "image_size": 224}
    profile = guessed({"architectures": ["Foo"], "text_config": text, "vision_config": vision})
    assert isinstance(profile.layers[0].feed_forward, MoeProfile)
    assert [encoder.modality for encoder in profile.encoders] == ["image"]
    assert any("Qwen3MoeForCausalLM" in note for note in profile.notes)


def test_quantised_estimates_are_less_sure() -> None:
    plain, packed = unknown("meta-llama--Llama-3.1-8B-Instruct"), unknown("synthetic--llama-8b-ct-w4a16")
    assert guessed(packed).weight_band > guessed(plain).weight_band
    assert weights(guessed(packed)) < 0.5 * weights(guessed(plain))


def test_nothing_is_made_of_a_file_without_the_fields_of_a_decoder() -> None:
    answer = read_profile(summary_of({"architectures": ["Foo"], "hidden_size": 64}), guess=True)
    assert isinstance(answer, Refusal)
    assert "vocab_size" in answer.message or "num_" in answer.message


def test_bytes_of_the_checkpoint_that_are_not_accounted_for_are_divided_among_ranks() -> None:
    profile = guessed(unknown("meta-llama--Llama-3.1-8B-Instruct"))
    stored = 16_060_522_496
    larger = with_total(profile, stored + 2**30)
    assert weights(larger) - weights(profile) == pytest.approx(2**30, abs=64 * 2**16)
    assert weights(larger, 4) - weights(profile, 4) == pytest.approx(2**28, abs=64 * 2**16)
    assert larger.weight_band < profile.weight_band
    same = with_total(profile, stored)
    assert weights(same) - weights(profile) < 64 * 2**16


def test_an_estimate_that_is_larger_than_the_checkpoint_is_less_sure() -> None:
    profile = guessed(unknown("meta-llama--Llama-3.1-8B-Instruct"))
    smaller = with_total(profile, 8_030_261_248)
    assert weights(smaller) == weights(profile)
    assert smaller.weight_band > 0.5
