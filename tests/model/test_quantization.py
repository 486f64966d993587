"""Reading quantised checkpoints: which module is stored how, where it is said, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from stowage.model.config_json import read_profile
from stowage.model.profile import ModelProfile
from stowage.model.tensors import Scheme
from stowage_runtime.contract import summarize
from tests.model.support import TINY, profile_of, published

ARGS: Mapping[str, Any] = {"symmetric": True, "dynamic": False}
FP8_CHANNEL = {**ARGS, "num_bits": 8, "type": "float", "strategy": "channel"}
FP8_TOKEN = {**ARGS, "num_bits": 8, "type": "float", "strategy": "token", "dynamic": True}
INT4_GROUP = {**ARGS, "num_bits": 4, "type": "int", "strategy": "group", "group_size": 64}
NVFP4 = {**ARGS, "num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}


def compressed(
    *groups: tuple[str | list[str], Mapping[str, Any], Mapping[str, Any] | None],
    form: str = "float-quantized",
    **more: Any,
) -> dict[str, Any]:
    """Make a compressed-tensors block of (targets, weights, activations)."""
    listed = {
        f"group_{number}": {
            "targets": [targets] if isinstance(targets, str) else targets,
            "weights": dict(weights),
            "input_activations": dict(inputs) if inputs else None,
        }
        for number, (targets, weights, inputs) in enumerate(groups)
    }
    return {"quant_method": "compressed-tensors", "format": form, "config_groups": listed, **more}


def shown(scheme: Scheme | None) -> str:
    """Say a layout in a few words."""
    if scheme is None:
        return "plain"
    size = scheme.block or scheme.group_size or ""
    extras = [word for word in ("zero_point", "act_order", "static_activation") if getattr(scheme, word)]
    return " ".join(str(word) for word in (scheme.weight, scheme.strategy, size, *extras) if word)


def layouts(profile: ModelProfile) -> dict[str, str]:
    """Give the layout of every linear layer, by a short name."""
    found = {}
    for tensor in profile.outer_tensors:
        if tensor.linear is not None:
            found[tensor.linear.module] = shown(tensor.linear.scheme)
    for number, layer in enumerate(profile.layers):
        for tensor in layer.tensors:
            if tensor.linear is not None:
                found[f"{number}.{tensor.linear.module.rpartition('.')[2]}"] = shown(tensor.linear.scheme)
    return found


AWQ = {"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 64, "desc_act": False, "sym": True}
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic"}
MODELOPT = {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"]}
ROUND = {"quant_method": "auto-round", "bits": 4, "group_size": 64, "sym": True}
BNB = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        pytest.param(
            FP8, {"0.qkv_proj": "fp8 tensor", "lm_head": "plain"}, id="fp8 has one scale a tensor by default"
        ),
        pytest.param(
            {**FP8, "weight_block_size": [64, 128]},
            {"0.down_proj": "fp8 block (64, 128)"},
            id="fp8 blocks keep rows and columns apart",
        ),
        pytest.param(
            {**FP8, "activation_scheme": "static"},
            {"0.o_proj": "fp8 tensor static_activation"},
            id="static activations have a stored scale",
        ),
        pytest.param(
            {**FP8, "ignored_layers": [f"model.layers.1.self_attn.{p}_proj" for p in "qkv"]},
            {"1.qkv_proj": "plain", "0.qkv_proj": "fp8 tensor", "1.o_proj": "fp8 tensor"},
            id="a list that names all parts leaves out the fused module of that layer",
        ),
        pytest.param(
            {**FP8, "modules_to_not_convert": ["model.layers.2.mlp.gate_up_proj", "down_proj"]},
            {"2.gate_up_proj": "plain", "2.down_proj": "fp8 tensor"},
            id="fp8 lists whole names, and fused names count too",
        ),
        pytest.param(
            {"quant_method": "fbgemm_fp8", "modules_to_not_convert": ["model.layers.0.self_attn.o_proj"]},
            {"0.o_proj": "plain", "1.o_proj": "fp8 channel"},
            id="fbgemm has a scale a channel",
        ),
        pytest.param(AWQ, {"3.down_proj": "int4 group 64 zero_point", "lm_head": "plain"}, id="AWQ"),
        pytest.param(
            {**AWQ, "modules_to_not_convert": ["layers.1.mlp", "self_attn"]},
            {"1.gate_up_proj": "plain", "0.gate_up_proj": "int4 group 64 zero_point", "0.o_proj": "plain"},
            id="AWQ leaves modules out by contained text",
        ),
        pytest.param({**GPTQ, "group_size": -1}, {"0.o_proj": "int4 channel"}, id="GPTQ without groups"),
        pytest.param(
            {**GPTQ, "desc_act": True, "sym": False},
            {"0.o_proj": "int4 group 64 zero_point act_order"},
            id="GPTQ with activation order",
        ),
        pytest.param(
            {
                **GPTQ,
                "lm_head": True,
                "dynamic": {"-:.*layers\\.0\\.mlp.*": {}, "+:.*layers\\.1\\..*": {"bits": 8}},
            },
            {
                "lm_head": "int4 group 64",
                "0.down_proj": "plain",
                "0.o_proj": "int4 group 64",
                "1.o_proj": "int8 group 64",
            },
            id="GPTQ rules change single modules",
        ),
        pytest.param(
            {**GPTQ, "modules_in_block_to_quantize": [["self_attn.o_proj"], ["mlp.down_proj"]]},
            {"0.o_proj": "int4 group 64", "0.qkv_proj": "plain", "2.down_proj": "int4 group 64"},
            id="GPTQ may list what is quantised",
        ),
        pytest.param(
            {
                **ROUND,
                "extra_config": {
                    "model.layers.0.mlp.down_proj": {"bits": 16},
                    ".*layers\\.1\\.mlp.*": {"bits": 8},
                },
            },
            {
                "0.down_proj": "plain",
                "1.down_proj": "int8 group 64",
                "2.down_proj": "int4 group 64",
                "lm_head": "plain",
            },
            id="auto-round changes modules by name and by pattern",
        ),
        pytest.param(
            {**ROUND, "block_name_to_quantize": "model.layers", "extra_config": {"lm_head": {"bits": 4}}},
            {"0.o_proj": "int4 group 64", "lm_head": "int4 group 64"},
            id="auto-round may quantise the head",
        ),
        pytest.param(
            {**ROUND, "packing_format": "auto_round:auto_awq"},
            {"0.o_proj": "int4 group 64 zero_point"},
            id="auto-round packed as AWQ always has zero points",
        ),
        pytest.param(
            compressed(("Linear", FP8_CHANNEL, FP8_TOKEN), ignore=["lm_head"]),
            {"0.qkv_proj": "fp8 channel", "lm_head": "plain"},
            id="FP8-dynamic of llm-compressor",
        ),
        pytest.param(
            compressed(
                ("Linear", INT4_GROUP, None), form="pack-quantized", ignore=["re:.*layers\\.[01]\\.mlp.*"]
            ),
            {"1.down_proj": "plain", "2.down_proj": "int4 group 64", "0.o_proj": "int4 group 64"},
            id="patterns of ignore reach single layers",
        ),
        pytest.param(
            compressed(("re:.*(q|k|v)_proj$", FP8_CHANNEL, FP8_TOKEN), ("re:.*mlp.*", NVFP4, NVFP4)),
            {"0.qkv_proj": "fp8 channel", "0.o_proj": "plain", "0.gate_up_proj": "nvfp4 group 16"},
            id="two groups with patterns, and what neither means stays plain",
        ),
        pytest.param(
            compressed((["model.layers.2.mlp.down_proj", "lm_head"], FP8_CHANNEL, FP8_TOKEN)),
            {"2.down_proj": "fp8 channel", "1.down_proj": "plain", "lm_head": "fp8 channel"},
            id="targets by name, the head among them",
        ),
        pytest.param(
            compressed(("re:.*q_proj$", FP8_CHANNEL, FP8_TOKEN)),
            {"0.qkv_proj": "plain"},
            id="a target that means one part of a fused module means nothing",
        ),
        pytest.param(
            MODELOPT,
            {"0.o_proj": "nvfp4 group 16 static_activation", "lm_head": "plain"},
            id="ModelOpt NVFP4",
        ),
        pytest.param(
            {**MODELOPT, "ignore": ["model.layers.0.self_attn*", "*down_proj"]},
            {"0.qkv_proj": "plain", "1.qkv_proj": "nvfp4 group 16 static_activation", "3.down_proj": "plain"},
            id="ModelOpt leaves out by wildcards, and quantises the head unless told",
        ),
        pytest.param(
            {**MODELOPT, "ignore": []}, {"lm_head": "nvfp4 group 16 static_activation"}, id="ModelOpt's head"
        ),
        pytest.param(
            {**MODELOPT, "config_groups": {"group_0": {"input_activations": None}}},
            {"0.o_proj": "nvfp4 group 16"},
            id="ModelOpt NVFP4 without activations is weight-only",
        ),
        pytest.param(
            {
                "quant_method": "modelopt",
                "quantization": {
                    "quant_algo": "MIXED_PRECISION",
                    "quantized_layers": {
                        "model.layers.1.self_attn.o_proj": {"quant_algo": "FP8"},
                        **{f"model.layers.0.self_attn.{p}_proj": {"quant_algo": "NVFP4"} for p in "qkv"},
                    },
                },
            },
            {"1.o_proj": "fp8 tensor static_activation", "0.o_proj": "plain", "1.qkv_proj": "plain"}
            | {"0.qkv_proj": "nvfp4 group 16 static_activation"},
            id="ModelOpt's mixed precision lists every module",
        ),
        pytest.param(
            {**BNB, "llm_int8_skip_modules": ["lm_head", "model.layers.1.mlp", "o_proj"]},
            {"0.o_proj": "plain", "1.down_proj": "plain", "0.down_proj": "nf4 group 64", "lm_head": "plain"},
            id="bitsandbytes skips by component and by prefix",
        ),
    ],
)
def test_modules_get_the_layout_that_the_block_gives_them(
    block: dict[str, Any], expected: dict[str, str]
) -> None:
    found = layouts(profile_of(TINY, quantization_config=block))
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("fixture", "expected"),
    [
        pytest.param(
            "synthetic--qwen3-30b-gptq",
            {"0.gate": "plain", "0.experts": "int4 group 128", "1.o_proj": "int4 group 128"},
            id="routers stay plain",
        ),
        pytest.param(
            "synthetic--qwen3-30b-modelopt-mixed",
            {
                "0.experts": "plain",
                "1.experts": "nvfp4 group 16 static_activation",
                "0.qkv_proj": "fp8 tensor static_activation",
            },
            id="mixed precision lists experts one by one",
        ),
        pytest.param(
            "openai--gpt-oss-20b",
            {"0.experts": "mxfp4 group 32", "0.qkv_proj": "plain"},
            id="MXFP4 is for experts",
        ),
        pytest.param(
            "synthetic--qwen3-30b-ct-w4a16-asym",
            {"0.experts": "int4 group 32 zero_point", "0.qkv_proj": "plain"},
            id="a target for linear layers means experts too",
        ),
    ],
)
def test_experts_are_read_as_one_module(fixture: str, expected: dict[str, str]) -> None:
    found = layouts(published(fixture))
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("config", "sidecar", "expected"),
    [
        pytest.param({"quantization_config": FP8}, None, "fp8", id="config.json"),
        pytest.param(
            {"compression_config": compressed(("Linear", FP8_CHANNEL, FP8_TOKEN))},
            None,
            "compressed-tensors",
            id="compression_config",
        ),
        pytest.param(
            {},
            {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}},
            "modelopt",
            id="the ModelOpt sidecar",
        ),
        pytest.param(
            {"quantization_config": FP8},
            {"quantization": {"quant_algo": "NVFP4"}},
            "fp8",
            id="config.json before the sidecar",
        ),
        pytest.param(
            {"quantization_config": {"quant_algo": "mxfp8", "producer": {"name": "modelopt"}}},
            None,
            "modelopt_mxfp8",
            id="ModelOpt without a method, in lower case",
        ),
        pytest.param(
            {
                "quantization_config": {
                    "quant_method": "compressed_tensors",
                    **{
                        k: v
                        for k, v in compressed(("Linear", FP8_CHANNEL, None)).items()
                        if k != "quant_method"
                    },
                }
            },
            None,
            "compressed-tensors",
            id="an underscore in the name",
        ),
        pytest.param(
            {"quantization_config": ROUND}, None, "inc", id="auto-round is called inc by the engine"
        ),
    ],
)
def test_the_method_is_found_wherever_it_is_said(
    config: dict[str, Any], sidecar: dict[str, Any] | None, expected: str
) -> None:
    summary = summarize(
        {}, source="hf://t/m", revision="0" * 40, config={**TINY, **config}, quantization=sidecar
    )
    profile = read_profile(summary)
    assert isinstance(profile, ModelProfile), profile
    assert profile.quantization == expected


KV8 = {"num_bits": 8, "type": "float", "dynamic": False, "symmetric": True, "strategy": "tensor"}


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        pytest.param(
            compressed(("Linear", FP8_CHANNEL, FP8_TOKEN), kv_cache_scheme=KV8),
            "fp8",
            id="a scheme of compressed-tensors",
        ),
        pytest.param(compressed(("Linear", FP8_CHANNEL, FP8_TOKEN)), None, id="none of compressed-tensors"),
        pytest.param({**MODELOPT, "kv_cache_quant_algo": "FP8"}, "fp8_e4m3", id="ModelOpt's algorithm"),
        pytest.param(
            {**MODELOPT, "kv_cache_scheme": {**KV8, "num_bits": 4}},
            "nvfp4",
            id="ModelOpt's scheme of four bits",
        ),
        pytest.param(
            {**MODELOPT, "kv_cache_scheme": {**KV8, "dynamic": True}},
            None,
            id="ModelOpt's dynamic scheme is not taken",
        ),
        pytest.param(
            {**MODELOPT, "kv_cache_quant_algo": "INT8"},
            None,
            id="what the engine does not know leaves the cache alone",
        ),
        pytest.param(FP8, None, id="fp8 says nothing of the cache"),
    ],
)
def test_a_checkpoint_may_decide_on_the_kv_cache(block: dict[str, Any], expected: str | None) -> None:
    assert profile_of(TINY, quantization_config=block).kv_cache_dtype == expected
