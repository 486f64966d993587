"""Headers against config.json: agreement, harmless differences, contradictions."""

from __future__ import annotations

from typing import Any

import pytest

from stowage.api.refusal import Refusal
from stowage.model.config_json import read_profile
from stowage.model.profile import ModelProfile
from stowage_runtime.contract.checkpoint_summary import tensor_bytes
from tests.model.support import MODELS, TINY, config_of, headers_of, profile_of, published, summary_of


@pytest.mark.parametrize("folder", sorted(path.name for path in MODELS.iterdir()))
def test_a_complete_checkpoint_agrees_with_its_configuration(folder: str) -> None:
    expected = published(folder)
    profile = read_profile(summary_of(config_of(folder), headers_of(expected)))
    assert isinstance(profile, ModelProfile)
    assert profile.parameter_evidence == "headers"
    assert profile.notes == expected.notes
    assert profile.checkpoint_bytes == sum(tensor_bytes(*header) for header in headers_of(expected).values())


@pytest.mark.parametrize(
    ("folder", "parameters"),
    [
        pytest.param("meta-llama--Llama-3.1-8B-Instruct", 8_030_261_248, id="Llama-3.1-8B"),
        pytest.param("meta-llama--Meta-Llama-3.1-70B", 70_553_706_496, id="Llama-3.1-70B"),
        pytest.param("Qwen--Qwen2.5-7B-Instruct", 7_615_616_512, id="Qwen2.5-7B"),
        pytest.param("Qwen--Qwen3-32B", 32_762_123_264, id="Qwen3-32B"),
        pytest.param("Qwen--Qwen3-0.6B", 596_049_920, id="Qwen3-0.6B without its second copy of the head"),
        pytest.param("meta-llama--Llama-2-7b-chat-hf", 6_738_415_616, id="Llama-2-7B"),
        pytest.param("deepseek-ai--DeepSeek-R1-Distill-Qwen-14B", 14_770_033_664, id="R1-Distill-Qwen-14B"),
        pytest.param("mistralai--Mistral-7B-Instruct-v0.3", 7_248_023_552, id="Mistral-7B-v0.3"),
    ],
)
def test_parameter_counts_are_the_published_ones(folder: str, parameters: int) -> None:
    assert sum(_elements(shape) for _, shape in headers_of(published(folder)).values()) == parameters


def test_rotary_frequencies_and_a_second_head_are_no_news() -> None:
    config = {**TINY, "tie_word_embeddings": True}
    headers = headers_of(profile_of(config))
    headers["model.layers.0.self_attn.rotary_emb.inv_freq"] = ("F32", (16,))
    headers["lm_head.weight"] = ("BF16", (257, 256))
    profile = read_profile(summary_of(config, headers))
    assert isinstance(profile, ModelProfile)
    assert profile.notes == ()


def test_other_names_with_the_same_sizes_are_noted() -> None:
    headers = {name.replace("model.", "", 1): header for name, header in headers_of(profile_of(TINY)).items()}
    profile = read_profile(summary_of(TINY, headers))
    assert isinstance(profile, ModelProfile)
    assert "other names" in profile.notes[0]


def test_tensors_beyond_the_configuration_are_noted() -> None:
    headers = {**headers_of(profile_of(TINY)), "mtp.weight": ("BF16", (4,))}
    profile = read_profile(summary_of(TINY, headers))
    assert isinstance(profile, ModelProfile)
    assert "mtp.weight" in profile.notes[0]


def test_the_headers_know_the_dtype_where_the_configuration_does_not() -> None:
    config = {**TINY, "torch_dtype": None}
    profile = read_profile(summary_of(config, headers_of(profile_of(TINY), "F16")))
    assert isinstance(profile, ModelProfile)
    assert (profile.dtype, profile.checkpoint_dtype) == ("float16", "float16")


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        pytest.param(
            {"lm_head.weight": None}, "InvalidCheckpoint", "lm_head.weight", id="a tensor is missing"
        ),
        pytest.param(
            {"model.norm.weight": ("BF16", (128,))},
            "InvalidCheckpoint",
            "[128]",
            id="a tensor has another shape",
        ),
        pytest.param(
            {"model.norm.weight": ("F8_E4M3", (256,))},
            "UnsupportedQuantization",
            "F8_E4M3",
            id="a tensor is fp8",
        ),
        pytest.param({"x.qweight": ("I32", (8,))}, "UnsupportedQuantization", "I32", id="a tensor is packed"),
    ],
)
def test_contradictions_are_refused(change: dict[str, Any], reason: str, words: str) -> None:
    headers: dict[str, Any] = {**headers_of(profile_of(TINY)), **change}
    answer = read_profile(summary_of(TINY, {name: header for name, header in headers.items() if header}))
    assert isinstance(answer, Refusal)
    assert answer.reason.value == reason
    assert words in answer.message


def _elements(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total
