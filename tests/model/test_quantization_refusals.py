"""Quantised checkpoints that are refused, and what their headers decide."""

from __future__ import annotations

from typing import Any

import pytest

from stowage.api.refusal import Refusal
from stowage.model.config_json import read_profile
from stowage.model.profile import ModelProfile
from tests.model.support import TINY, config_of, headers_of, profile_of, summary_of
from tests.model.test_quantization import (
    AWQ,
    BNB,
    FP8,
    FP8_CHANNEL,
    FP8_TOKEN,
    GPTQ,
    INT4_GROUP,
    MODELOPT,
    ROUND,
    compressed,
    layouts,
)


@pytest.mark.parametrize(
    ("block", "reason", "said"),
    [
        pytest.param(
            {"quant_method": "gguf"},
            "UnsupportedQuantization",
            "vllm-gguf-plugin",
            id="GGUF names the plugin",
        ),
        pytest.param(
            {"quant_method": "quark"}, "UnsupportedQuantization", "quark", id="a method that nobody sizes"
        ),
        pytest.param(
            {"bits": 4}, "UnsupportedQuantization", "names no method", id="a block without a method"
        ),
        pytest.param({**AWQ, "bits": 8}, "UnsupportedQuantization", "8 bits", id="AWQ has four bits"),
        pytest.param(
            {**AWQ, "group_size": None}, "InvalidModelConfig", "group_size", id="a missing group size"
        ),
        pytest.param(
            {**AWQ, "group_size": "128"}, "InvalidModelConfig", "'128'", id="a group size that is text"
        ),
        pytest.param(
            {**FP8, "weight_block_size": [128]},
            "InvalidModelConfig",
            "weight_block_size",
            id="a block of one number",
        ),
        pytest.param(
            {**FP8, "weight_block_size": [128, 128], "activation_scheme": "static"},
            "UnsupportedQuantization",
            "static",
            id="blocks with static activations",
        ),
        pytest.param(
            {**FP8, "ignored_layers": ["model.layers.0.self_attn.q_proj"]},
            "UnsupportedQuantization",
            "parts",
            id="one part of a fused module",
        ),
        pytest.param(
            {**GPTQ, "dynamic": {"-:(": {}}},
            "UnsupportedQuantization",
            "pattern",
            id="a pattern that cannot be read",
        ),
        pytest.param(
            {**MODELOPT, "quant_algo": "W4A8_AWQ"},
            "UnsupportedQuantization",
            "W4A8_AWQ",
            id="an algorithm of ModelOpt that is not known",
        ),
        pytest.param(
            {**BNB, "load_in_8bit": True}, "UnsupportedQuantization", "8 bits", id="8-bit bitsandbytes"
        ),
        pytest.param(
            {**ROUND, "data_type": "mx_fp"}, "UnsupportedQuantization", "mx_fp", id="auto-round of floats"
        ),
        pytest.param(compressed(), "UnsupportedQuantization", "config_groups", id="no groups"),
        pytest.param(
            compressed(("Linear", INT4_GROUP, FP8_TOKEN), form="pack-quantized"),
            "UnsupportedQuantization",
            "4-bit int",
            id="four bits with fp8 activations",
        ),
        pytest.param(
            compressed(("Linear", INT4_GROUP, None), form="int-quantized"),
            "UnsupportedQuantization",
            "int-quantized",
            id="weight-only integers that are not packed",
        ),
        pytest.param(
            compressed(("Linear", {**INT4_GROUP, "actorder": "group"}, None), form="pack-quantized"),
            "UnsupportedQuantization",
            "ordering",
            id="group activation ordering",
        ),
        pytest.param(
            compressed(("Linear", FP8_CHANNEL, None), sparsity_config={"targets": ["Linear"]}),
            "UnsupportedQuantization",
            "Sparse",
            id="sparse weights",
        ),
        pytest.param(
            compressed(("Linear", FP8_CHANNEL, None), kv_cache_scheme={"num_bits": 4, "type": "int"}),
            "UnsupportedQuantization",
            "KV cache",
            id="a KV cache of integers",
        ),
        pytest.param(
            {**FP8, "ignored_layers": [1]}, "InvalidModelConfig", "list of strings", id="numbers for names"
        ),
    ],
)
def test_what_is_not_understood_is_refused(block: dict[str, Any], reason: str, said: str) -> None:
    answer = read_profile(summary_of({**TINY, "quantization_config": block}))
    assert isinstance(answer, Refusal), answer
    assert answer.reason.value == reason
    assert said in answer.sentence


def test_experts_with_two_layouts_are_refused() -> None:
    config = config_of("synthetic--qwen3-30b-ct-fp8-dynamic")
    config["quantization_config"]["ignore"].append("re:.*down_proj$")
    answer = read_profile(summary_of(config))
    assert isinstance(answer, Refusal)
    assert "different layouts" in answer.message


def test_layers_with_the_same_layouts_are_one_value() -> None:
    profile = profile_of(TINY, quantization_config={**AWQ, "modules_to_not_convert": ["layers.0."]})
    assert len({id(layer) for layer in profile.layers}) == 2
    assert profile.layers[1] is profile.layers[3]


def test_awq_without_a_list_is_read_from_the_headers() -> None:
    config = {**TINY, "quantization_config": AWQ}
    headers = headers_of(profile_of(config), "F16")
    plain = headers_of(profile_of(TINY), "F16")
    for name in [name for name in headers if "layers.2.mlp" in name]:
        del headers[name]
    headers.update({name: header for name, header in plain.items() if "layers.2.mlp" in name})
    profile = read_profile(summary_of(config, headers))
    assert isinstance(profile, ModelProfile), profile
    found = layouts(profile)
    assert (found["2.down_proj"], found["1.down_proj"]) == ("plain", "int4 group 64 zero_point")
    assert profile.parameter_evidence == "headers"


def test_fp8_that_lies_in_16_bits_is_refused() -> None:
    config = {**TINY, "quantization_config": FP8}
    headers = headers_of(profile_of(config))
    name = "model.layers.1.mlp.down_proj.weight"
    headers[name] = ("BF16", headers[name][1])
    answer = read_profile(summary_of(config, headers))
    assert isinstance(answer, Refusal)
    assert name in answer.message


def test_packed_tensors_without_a_block_are_refused() -> None:
    headers = headers_of(profile_of({**TINY, "quantization_config": AWQ}), "F16")
    answer = read_profile(summary_of(TINY, headers))
    assert isinstance(answer, Refusal)
    assert answer.reason.value == "UnsupportedQuantization"
    assert "I32" in answer.message


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param(".input_scale", id="scales of activations"),
        pytest.param(".g_idx", id="an order of inputs"),
    ],
)
def test_headers_may_lack_or_add_what_the_engine_can_do_without(ending: str) -> None:
    config = {**TINY, "quantization_config": {**FP8, "activation_scheme": "static"}}
    if ending == ".g_idx":
        config["quantization_config"] = GPTQ
    headers = {
        name: header for name, header in headers_of(profile_of(config)).items() if not name.endswith(ending)
    }
    if ending == ".g_idx":
        headers["model.layers.0.self_attn.q_proj.g_idx"] = ("I32", (256,))
    profile = read_profile(summary_of(config, headers))
    assert isinstance(profile, ModelProfile), profile
