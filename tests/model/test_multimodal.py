"""Multimodal models: what is read of towers, how they are joined with the language model, what is refused."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest

from stowage.api.refusal import Refusal
from stowage.memory.layout import RankLayout
from stowage.memory.quantized.kernels import kernels_of
from stowage.memory.weights import rank_tensors, rank_weights
from stowage.model.architectures import stored_tensors
from stowage.model.config_json import read_profile
from stowage.model.profile import EncoderProfile, ModelProfile
from tests.memory.support import GIB, H100, version
from tests.model.support import TINY, config_of, headers_of, profile_of, published, summary_of

TP1 = RankLayout(1, 1, 0)
TEXT = {key: value for key, value in TINY.items() if key != "architectures"}
VIT = {
    "model_type": "siglip_vision_model",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": 56,
    "patch_size": 14,
}
LLAVA: dict[str, Any] = {
    "architectures": ["LlavaForConditionalGeneration"],
    "model_type": "llava",
    "text_config": TEXT,
    "torch_dtype": "bfloat16",
    "vision_config": VIT,
    "vision_feature_layer": -2,
}


def _shapes(profile: ModelProfile, layout: RankLayout = TP1) -> dict[str, tuple[int, ...]]:
    return dict(rank_tensors(profile, layout))


def _refusal(config: dict[str, Any], **changes: Any) -> Refusal:
    answer = read_profile(summary_of({**config, **changes}))
    assert isinstance(answer, Refusal), answer
    return answer


def _encoder(profile: ModelProfile, modality: str) -> EncoderProfile:
    (found,) = (encoder for encoder in profile.encoders if encoder.modality == modality)
    return found


@pytest.mark.parametrize(
    ("folder", "parameters"),
    [
        pytest.param("Qwen--Qwen2.5-VL-72B-Instruct", 73_410_777_344, id="Qwen2.5-VL-72B"),
        pytest.param("Qwen--Qwen2.5-VL-7B-Instruct", 8_292_166_656, id="Qwen2.5-VL-7B"),
        pytest.param("Qwen--Qwen2-VL-2B-Instruct", 2_208_985_600, id="Qwen2-VL-2B, tied"),
        pytest.param("Qwen--Qwen3-VL-8B-Instruct", 8_767_123_696, id="Qwen3-VL-8B"),
        pytest.param(
            "mistralai--Mistral-Small-3.2-24B-Instruct-2506", 24_011_361_280, id="Mistral Small 3.2"
        ),
        pytest.param("openai--whisper-large-v3-turbo", 808_878_080, id="Whisper large v3 turbo"),
    ],
)
def test_a_checkpoint_holds_as_many_parameters_as_is_published(folder: str, parameters: int) -> None:
    assert sum(prod(shape) for shape in stored_tensors(published(folder)).values()) == parameters


@pytest.mark.parametrize(
    ("folder", "tp", "logged_gib", "tolerance"),
    [
        pytest.param("Qwen--Qwen2.5-VL-72B-Instruct", 4, 34.434, 2e-4, id="Qwen2.5-VL-72B tp4, vllm#16570"),
        pytest.param("google--gemma-3-27b-it", 4, 13.1664, 2e-3, id="gemma-3-27b tp4, vllm#16378"),
        pytest.param(
            "mistralai--Mistral-Small-3.2-24B-Instruct-2506", 1, 44.76, 2e-4, id="Mistral Small 3.2, llm-d-planner"
        ),
    ],
)  # fmt: skip
def test_weights_are_those_in_the_log(folder: str, tp: int, logged_gib: float, tolerance: float) -> None:
    weights = rank_weights(published(folder), RankLayout(tp, 1, 0), "bfloat16")
    assert weights.block_bytes / GIB == pytest.approx(logged_gib, rel=tolerance)


@pytest.mark.parametrize(
    ("folder", "names"),
    [
        pytest.param(
            "Qwen--Qwen2.5-VL-7B-Instruct",
            {
                "visual.blocks.0.attn.qkv.weight": (3840, 1280),
                "visual.blocks.31.mlp.gate_proj.bias": (3420,),
                "visual.merger.mlp.2.weight": (3584, 5120),
                "model.layers.0.self_attn.q_proj.bias": (3584,),
                "lm_head.weight": (152064, 3584),
            },
            id="Qwen2.5-VL keeps the language model where Qwen2.5 has it",
        ),
        pytest.param(
            "Qwen--Qwen3-VL-8B-Instruct",
            {
                "model.visual.deepstack_merger_list.2.linear_fc1.weight": (4608, 4608),
                "model.visual.pos_embed.weight": (2304, 1152),
                "model.language_model.layers.35.self_attn.q_norm.weight": (128,),
                "lm_head.weight": (151936, 4096),
            },
            id="Qwen3-VL nests both",
        ),
        pytest.param(
            "mistralai--Mistral-Small-3.2-24B-Instruct-2506",
            {
                "vision_tower.transformer.layers.0.attention.k_proj.weight": (1024, 1024),
                "multi_modal_projector.patch_merger.merging_layer.weight": (1024, 4096),
                "language_model.model.layers.0.self_attn.q_proj.weight": (4096, 5120),
                "language_model.lm_head.weight": (131072, 5120),
            },
            id="Mistral Small 3.2",
        ),
        pytest.param(
            "openai--whisper-large-v3-turbo",
            {
                "model.encoder.layers.0.fc1.weight": (5120, 1280),
                "model.decoder.layers.3.encoder_attn.k_proj.weight": (1280, 1280),
                "model.decoder.embed_positions.weight": (448, 1280),
            },
            id="Whisper has no mlp in its names",
        ),
        pytest.param(
            "moonshotai--Kimi-K2.5",
            {
                "mm_projector.proj.0.weight": (4608, 4608),
                "mm_projector.proj.2.bias": (7168,),
                "vision_tower.encoder.blocks.26.wqkv.weight": (3456, 1152),
            },
            id="Kimi K2.5 numbers its projector",
        ),
    ],
)
def test_tensors_have_the_names_of_the_published_checkpoint(
    folder: str, names: dict[str, tuple[int, ...]]
) -> None:
    stored = stored_tensors(published(folder))
    assert {name: stored.get(name) for name in names} == names


def test_keys_have_no_bias_in_a_whisper_checkpoint() -> None:
    names = stored_tensors(published("openai--whisper-large-v3-turbo"))
    assert not [name for name in names if name.endswith("k_proj.bias")]
    assert "model.encoder.layers.0.self_attn.v_proj.bias" in names


@pytest.mark.parametrize(
    ("layer", "kept"),
    [
        pytest.param(-2, 3, id="the last but one"),
        pytest.param(-1, 4, id="the last"),
        pytest.param(2, 2, id="counted from the front"),
        pytest.param([-3, 1], 2, id="the deepest of several"),
    ],
)
def test_a_tower_is_loaded_up_to_the_layer_whose_features_are_used(layer: Any, kept: int) -> None:
    shapes = _shapes(profile_of(LLAVA, vision_feature_layer=layer))
    numbers = {name.split(".")[4] for name in shapes if "vision_model.encoder.layers" in name}
    assert len(numbers) == kept


def test_a_language_model_alone_leaves_the_tower_out() -> None:
    profile = published("Qwen--Qwen2.5-VL-7B-Instruct")
    text = _shapes(profile, RankLayout(1, 1, 0, absent_modalities=("image", "video")))
    one_left = _shapes(profile, RankLayout(1, 1, 0, absent_modalities=("image",)))
    assert not [name for name in text if name.startswith("visual.")]
    assert one_left == _shapes(profile)


def test_data_parallel_towers_are_whole_but_for_projectors_of_the_decoders_layers() -> None:
    shapes = _shapes(profile_of(LLAVA), RankLayout(2, 1, 0, encoder_data_parallel=True))
    assert shapes["vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight"] == (128, 64)
    assert shapes["multi_modal_projector.linear_1.weight"] == (256 // 2, 64)
    assert shapes["language_model.model.layers.0.mlp.gate_up_proj.weight"] == (512, 256)


def test_a_tower_that_cannot_be_split_is_whole_where_the_engine_falls_back() -> None:
    profile = published("moonshotai--Kimi-K2.5")
    name = "vision_tower.encoder.blocks.0.wqkv.weight"
    assert _shapes(profile, RankLayout(16, 1, 0))[name] == (3456 // 16, 1152)
    assert _shapes(profile, RankLayout(32, 1, 0))[name] == (3456, 1152)


@pytest.mark.parametrize(
    ("folder", "rows"),
    [
        pytest.param("Qwen--Qwen2.5-VL-7B-Instruct", 4 * 128_000, id="positions of Qwen2.5-VL run ahead"),
        pytest.param("Qwen--Qwen3-VL-8B-Instruct", 262_144, id="those of Qwen3-VL do not"),
    ],
)
def test_the_multimodal_rotary_table(folder: str, rows: int) -> None:
    assert _shapes(published(folder))["rotary_emb.cos_sin_cache"] == (rows, 128)


def test_headers_of_the_published_form_are_recognised() -> None:
    config = config_of("Qwen--Qwen2-VL-2B-Instruct")
    headers = headers_of(profile_of(config))
    checked = read_profile(summary_of(config, headers))
    assert isinstance(checked, ModelProfile)
    assert checked.parameter_evidence == "headers"
    assert checked.notes == ()


@pytest.mark.parametrize(
    ("tied", "expected"),
    [
        pytest.param(None, False, id="nothing said: the text class's default, as the checkpoint shows"),
        pytest.param(True, True, id="the outer statement counts"),
    ],
)
def test_whether_embeddings_are_tied(tied: bool | None, expected: bool) -> None:
    config = {**config_of("mistralai--Mistral-Small-3.2-24B-Instruct-2506"), "tie_word_embeddings": tied}
    assert profile_of(config).tie_word_embeddings is expected


@pytest.mark.parametrize(
    ("folder", "modality", "tokens", "patches"),
    [
        pytest.param("Qwen--Qwen2.5-VL-7B-Instruct", "image", 16_384, 65_536, id="Qwen2.5-VL image"),
        pytest.param("Qwen--Qwen2.5-VL-7B-Instruct", "video", 114_688, 458_752, id="Qwen2.5-VL video"),
        pytest.param("Qwen--Qwen3-VL-8B-Instruct", "image", 16_384, 65_536, id="Qwen3-VL image"),
        pytest.param(
            "mistralai--Mistral-Small-3.2-24B-Instruct-2506", "image", 3025, 12_100, id="Mistral Small image"
        ),
        pytest.param("llava-hf--llava-1.5-7b-hf", "image", 576, 577, id="LLaVA 1.5 drops the class token"),
        pytest.param("openai--whisper-large-v3-turbo", "audio", 1500, 1500, id="30 seconds of Whisper"),
    ],
)
def test_the_largest_item(folder: str, modality: str, tokens: int, patches: int) -> None:
    encoder = _encoder(published(folder), modality)
    assert (encoder.max_item_tokens, encoder.max_item_patches) == (tokens, patches)


def test_whisper_attends_to_the_encoder_in_every_decoder_layer() -> None:
    profile = published("openai--whisper-large-v3-turbo")
    assert [mixer.source for mixer in profile.layers[0].mixers] == ["self", "cross"]  # type: ignore[union-attr]
    assert profile.layers[0].mixers[1].cross_tokens == 1500  # type: ignore[union-attr]
    assert (profile.num_layers, profile.max_model_len, profile.supports_pipeline) == (4, 448, False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"vision_config": None}, "config.json has no vision_config", id="no tower"),
        pytest.param(
            {"vision_config": {**VIT, "model_type": "swin"}}, "a vision tower of type 'swin'", id="unknown tower"
        ),
        pytest.param({"vision_feature_layer": 9}, "vision_feature_layer: 9", id="a layer that is not there"),
        pytest.param(
            {"text_config": {**TEXT, "model_type": "rwkv"}}, "a language model of type 'rwkv'", id="unknown text"
        ),
        pytest.param(
            {"text_config": {**TEXT, "architectures": ["FooForCausalLM"]}}, "FooForCausalLM", id="unknown reader"
        ),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused(changes: dict[str, Any], message: str) -> None:
    assert message in _refusal(LLAVA, **changes).message


def test_fields_that_a_nested_text_config_leaves_out_take_the_class_defaults() -> None:
    profile = published("llava-hf--llava-1.5-7b-hf")
    assert (profile.hidden_size, profile.num_layers, profile.vocab_size) == (4096, 32, 32_064)


@pytest.mark.parametrize(
    ("folder", "release", "factor"),
    [
        pytest.param("Qwen--Qwen3-VL-8B-Instruct", "0.31.0", 4, id="Qwen3-VL before 0.32"),
        pytest.param("Qwen--Qwen3-VL-8B-Instruct", "0.32.0", 1, id="Qwen3-VL since 0.32"),
        pytest.param("Qwen--Qwen2.5-VL-7B-Instruct", "0.31.0", 1, id="Qwen2.5-VL always has four times the rows"),
        pytest.param("Qwen--Qwen3-0.6B", "0.19.0", 1, id="a plain table never changes"),
    ],
)  # fmt: skip
def test_older_releases_keep_longer_multimodal_rotary_tables(folder: str, release: str, factor: int) -> None:
    profile = published(folder)
    rows, dim = _shapes(profile)["rotary_emb.cos_sin_cache"]
    here = kernels_of(H100, version(release))
    now = rank_weights(profile, TP1, "bfloat16").tensor_bytes
    then = rank_weights(profile, TP1, "bfloat16", kernels=here).tensor_bytes
    assert then - now == (factor - 1) * rows * dim * 2


def test_logged_weights_of_an_older_release_show_the_longer_table() -> None:
    weights = rank_weights(
        published("Qwen--Qwen3.5-27B"),
        RankLayout(4, 1, 0),
        "bfloat16",
        kernels=kernels_of(H100, version("0.19.0")),
    )
    assert weights.block_bytes / GIB == pytest.approx(13.01, abs=0.01)
