"""The encoder's part of the profiling run: what is profiled, its peak, and the embeddings that stay."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stowage.memory.encoder import (
    EncoderRun,
    absent_modalities,
    encoder_bytes,
    encoder_peak_bytes,
    encoder_run,
)
from stowage.memory.encoder_limits import check_encoders
from stowage.memory.estimates import NOTHING, Estimate
from stowage.memory.layout import RankLayout
from stowage.memory.setting import Setting
from stowage.model.profile import EncoderProfile
from tests.memory.support import H100, ledger_of, shape, version
from tests.model.support import published

QWEN2_5 = "Qwen--Qwen2.5-VL-7B-Instruct"
QWEN3 = "Qwen--Qwen3-VL-8B-Instruct"
MISTRAL = "mistralai--Mistral-Small-3.2-24B-Instruct-2506"
WHISPER = "openai--whisper-large-v3-turbo"
ONE_RANK = RankLayout(1, 1, 0)
NO_DECODER = NOTHING


def _run(folder: str, **changes: Any) -> EncoderRun:
    run = encoder_run(published(folder), shape(**changes))
    assert run is not None
    return run


def _setting(folder: str, release: str = "0.32.0", **changes: Any) -> Setting:
    return Setting(published(folder), shape(**changes), H100, version(release))


@pytest.mark.parametrize(
    ("folder", "changes", "modality", "budget", "items"),
    [
        pytest.param(QWEN2_5, {"max_model_len": 128_000}, "video", 114_688, 1, id="14 frames of video"),
        pytest.param(QWEN2_5, {"max_model_len": 32_768}, "video", 32_768, 1, id="a video cut to the context"),
        pytest.param(QWEN2_5, {"max_model_len": 4096}, "video", 16_384, 1, id="never less than one step"),
        pytest.param(
            QWEN2_5,
            {"max_model_len": 128_000, "limit_mm_per_prompt": (("video", 0),)},
            "image",
            16_384,
            1,
            id="images where videos are not accepted",
        ),
        pytest.param(QWEN3, {"max_model_len": 262_144}, "image", 16_384, 1, id="an image outweighs two frames"),
        pytest.param(
            MISTRAL, {"max_model_len": 16_000, "max_num_batched_tokens": 8192}, "image", 8192, 2, id="two images"
        ),
        pytest.param(
            MISTRAL,
            {"max_model_len": 16_000, "max_num_batched_tokens": 8192, "limit_mm_per_prompt": (("image", 1),),
             "max_num_seqs": 1},
            "image", 8192, 1, id="no more than requests and their limit allow",
        ),
        pytest.param(WHISPER, {"max_model_len": 448}, "audio", 2048, 1, id="one clip for Whisper"),
        pytest.param(
            WHISPER, {"max_model_len": 448, "max_num_batched_tokens": 16_384}, "audio", 16_384, 10, id="ten clips"
        ),
    ],
)  # fmt: skip
def test_what_is_profiled(
    folder: str, changes: dict[str, Any], modality: str, budget: int, items: int
) -> None:
    run = _run(folder, **changes)
    assert (run.encoder.modality, run.budget_tokens, run.items) == (modality, budget, items)


@pytest.mark.parametrize(
    ("changes", "absent"),
    [
        pytest.param({}, (), id="everything is accepted"),
        pytest.param({"language_model_only": True}, ("image", "video"), id="a language model only"),
        pytest.param({"limit_mm_per_prompt": (("image", 0), ("video", 2))}, ("image",), id="one limit of 0"),
    ],
)
def test_modalities_that_are_not_accepted(changes: dict[str, Any], absent: tuple[str, ...]) -> None:
    assert absent_modalities(published(QWEN2_5), shape(**changes)) == absent


@pytest.mark.parametrize(
    ("folder", "changes"),
    [
        pytest.param("Qwen--Qwen3-0.6B", {}, id="a model without an encoder"),
        pytest.param(QWEN2_5, {"language_model_only": True}, id="a language model only"),
        pytest.param(QWEN2_5, {"limit_mm_per_prompt": (("image", 0), ("video", 0))}, id="all limits are 0"),
    ],
)
def test_nothing_is_added_without_an_encoder(folder: str, changes: dict[str, Any]) -> None:
    setting = _setting(folder, **changes)
    assert encoder_run(setting.profile, setting.shape) is None
    assert encoder_bytes(setting, ONE_RANK, NO_DECODER) == NOTHING


def test_the_peak_is_the_widest_part_of_one_layer_over_all_patches() -> None:
    gated = EncoderProfile("image", 100, 400, 2, 4, 10, 40, 50, gated=True)
    plain = EncoderProfile("image", 100, 200, 2, 4, 10, 40, 50)
    whole = EncoderProfile("image", 100, 400, 2, 4, 10, 40, 50, gated=True, divided=False)
    two = RankLayout(2, 1, 0)
    assert encoder_peak_bytes(EncoderRun(gated, 30, 10, 3), ONE_RANK, 2).value == 120 * (200 + 1200) * 2
    assert encoder_peak_bytes(EncoderRun(plain, 30, 10, 3), ONE_RANK, 2).value == 120 * (200 + 600) * 2
    assert encoder_peak_bytes(EncoderRun(gated, 30, 10, 3), two, 2).value == 120 * (200 + 600) * 2
    assert encoder_peak_bytes(EncoderRun(whole, 30, 10, 3), two, 2).value == 120 * (200 + 1200) * 2
    peak = encoder_peak_bytes(EncoderRun(gated, 30, 10, 3), ONE_RANK, 2)
    assert peak.low < peak.value < peak.high


def test_patches_shrink_with_a_video_that_is_cut() -> None:
    whole, cut = _run(QWEN2_5, max_model_len=128_000), _run(QWEN2_5, max_model_len=32_768)
    assert (whole.patches, cut.patches) == (458_752, 131_072)


def test_a_decoder_that_needs_more_than_the_encoder_keeps_the_embeddings_only() -> None:
    setting = _setting(MISTRAL, max_model_len=16_000, max_num_batched_tokens=8192)
    kept = 2 * 3025 * 5120 * 2
    huge = Estimate(1e12, 1e12, 1e12)
    assert encoder_bytes(setting, ONE_RANK, huge) == Estimate(kept, kept, kept)


def test_an_encoder_that_needs_more_than_the_decoder_sets_the_peak() -> None:
    setting = _setting(QWEN2_5, max_model_len=128_000)
    run = _run(QWEN2_5, max_model_len=128_000)
    peak = encoder_peak_bytes(run, ONE_RANK, 2)
    kept = 114_688 * 3584 * 2
    decoder = Estimate(1e9, 1e9, 1e9)
    added = encoder_bytes(setting, ONE_RANK, decoder)
    assert decoder.plus(added).value == peak.value + kept
    assert added.low < added.value < added.high


@pytest.mark.parametrize(
    ("release", "stage", "runs"),
    [
        pytest.param("0.32.0", 0, True, id="the V2 runner on the first stage"),
        pytest.param("0.32.0", 1, False, id="the V2 runner on another stage"),
        pytest.param("0.11.0", 1, True, id="the V1 runner on every stage"),
    ],
)
def test_which_stages_run_the_encoder(release: str, stage: int, runs: bool) -> None:
    setting = _setting(QWEN2_5, release, pipeline_parallel_size=2, max_model_len=32_768)
    assert (encoder_bytes(setting, RankLayout(1, 2, stage), NO_DECODER) != NOTHING) is runs


def test_deepstack_embeddings_are_kept_with_the_others() -> None:
    (image, _) = published(QWEN3).encoders
    assert image.output_size == 4 * 4096


@pytest.mark.parametrize(
    ("folder", "changes", "message", "hint"),
    [
        pytest.param(
            QWEN2_5,
            {"tensor_parallel_size": 4},
            None,
            "",
            id="TP 4 divides 16 heads and 3420 columns",
        ),
        pytest.param(
            WHISPER,
            {"pipeline_parallel_size": 2},
            "cannot cut a WhisperForConditionalGeneration into pipeline stages",
            "pipeline parallel size 1",
            id="no pipeline for Whisper",
        ),
        pytest.param(
            QWEN3, {"pipeline_parallel_size": 12}, None, "", id="three layers on the first of 12 stages"
        ),
        pytest.param(
            QWEN3,
            {"pipeline_parallel_size": 18},
            "leaves 2 layers on the first stage",
            "fewer",
            id="the tower's features reach three layers",
        ),
        pytest.param(
            "moonshotai--Kimi-K2.5", {"tensor_parallel_size": 32}, None, "", id="a tower that falls back"
        ),
    ],
)
def test_which_parallel_sizes_the_encoder_allows(
    folder: str, changes: dict[str, Any], message: str | None, hint: str
) -> None:
    refusal = check_encoders(published(folder), shape(**changes))
    if message is None:
        assert refusal is None
    else:
        assert refusal is not None
        assert message in refusal.message
        assert hint in refusal.hint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({}, "TP 8 does not divide the 12 heads of the image encoder.", id="12 heads"),
        pytest.param({"language_model_only": True}, None, id="a tower that is not loaded puts no limit"),
        pytest.param({"limit_mm_per_prompt": (("image", 0),)}, None, id="nor one without a modality"),
    ],
)
def test_heads_of_a_tower_must_divide(changes: dict[str, Any], message: str | None) -> None:
    tower = EncoderProfile("image", 1536, 4096, 24, 12, 6144, 24_576, 4096)
    profile = replace(published("Qwen--Qwen3-0.6B"), encoders=(tower,))
    refusal = check_encoders(profile, shape(tensor_parallel_size=8, **changes))
    assert (refusal and refusal.message) == message
    assert refusal is None or "TP 1, 2, 4;" in refusal.hint


def test_columns_of_a_tower_must_divide() -> None:
    refusal = check_encoders(published(QWEN2_5), shape(tensor_parallel_size=8))
    assert refusal is not None
    assert refusal.message == "TP 8 does not divide the feed-forward size of 3420 of the image encoder."


@pytest.mark.parametrize(
    ("release", "runs"),
    [
        pytest.param("0.24.0", True, id="the first runner does"),
        pytest.param("0.26.0", False, id="the second did not at first"),
        pytest.param("0.28.0", True, id="it does from 0.28 on"),
    ],
)
def test_which_releases_profile_the_tower_of_a_dense_model(release: str, runs: bool) -> None:
    profile = published("Qwen--Qwen2.5-VL-7B-Instruct")
    limits = {"max_num_seqs": 8, "max_num_batched_tokens": 2048, "max_model_len": 32768}
    with_images = ledger_of(profile, H100, release, **limits).activation_bytes
    without = ledger_of(profile, H100, release, language_model_only=True, **limits).activation_bytes
    assert (with_images > without) is runs
