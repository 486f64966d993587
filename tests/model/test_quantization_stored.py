"""Names, shapes and element types of packed tensors, as published checkpoints have them."""

from __future__ import annotations

import pytest

from stowage.model.quantization.stored import stored_module
from stowage.model.tensors import Scheme, StoredTensor

CT = "compressed-tensors"


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        pytest.param(
            Scheme("awq", "int4", "group", 128, zero_point=True),
            {"qweight": ((512, 96), "I32"), "qzeros": ((4, 96), "I32"), "scales": ((4, 768), None)},
            id="AWQ packs outputs",
        ),
        pytest.param(
            Scheme("gptq", "int4", "group", 128),
            {"qweight": ((64, 768), "I32"), "qzeros": ((4, 96), "I32"), "scales": ((4, 768), None)},
            id="GPTQ packs inputs",
        ),
        pytest.param(
            Scheme("gptq", "int8", "channel"),
            {"qweight": ((128, 768), "I32"), "qzeros": ((1, 192), "I32"), "scales": ((1, 768), None)},
            id="GPTQ of 8 bits without groups",
        ),
        pytest.param(
            Scheme(CT, "int4", "group", 32, zero_point=True),
            {
                "weight_packed": ((768, 64), "I32"),
                "weight_scale": ((768, 16), None),
                "weight_shape": ((2,), "I64"),
                "weight_zero_point": ((96, 16), "I32"),
            },
            id="pack-quantized with zero points",
        ),
        pytest.param(
            Scheme(CT, "int8", "channel", activation="int8"),
            {"weight": ((768, 512), "I8"), "weight_scale": ((768, 1), None)},
            id="int8 for both operands",
        ),
        pytest.param(
            Scheme(CT, "fp8", "channel", activation="fp8"),
            {"weight": ((768, 512), "F8_E4M3"), "weight_scale": ((768, 1), None)},
            id="FP8-dynamic",
        ),
        pytest.param(
            Scheme("fp8", "fp8", "block", block=(128, 64)),
            {"weight": ((768, 512), "F8_E4M3"), "weight_scale_inv": ((6, 8), None)},
            id="blocks have an inverse scale",
        ),
        pytest.param(
            Scheme(CT, "fp8", "block", block=(128, 64)),
            {"weight": ((768, 512), "F8_E4M3"), "weight_scale": ((6, 8), None)},
            id="blocks of compressed-tensors have a plain one",
        ),
        pytest.param(
            Scheme("modelopt", "fp8", "tensor", static_activation=True),
            {"weight": ((768, 512), "F8_E4M3"), "weight_scale": ((), "F32"), "input_scale": ((), "F32")},
            id="ModelOpt FP8",
        ),
        pytest.param(
            Scheme("modelopt", "nvfp4", "group", 16, activation="nvfp4", static_activation=True),
            {
                "weight": ((768, 256), "U8"),
                "weight_scale": ((768, 32), "F8_E4M3"),
                "weight_scale_2": ((), "F32"),
                "input_scale": ((), "F32"),
            },
            id="ModelOpt NVFP4",
        ),
        pytest.param(
            Scheme(CT, "nvfp4", "group", 16, activation="nvfp4"),
            {
                "weight_packed": ((768, 256), "U8"),
                "weight_scale": ((768, 32), "F8_E4M3"),
                "weight_global_scale": ((1,), "F32"),
                "input_global_scale": ((1,), "F32"),
            },
            id="NVFP4 of compressed-tensors",
        ),
        pytest.param(
            Scheme("modelopt", "mxfp8", "group", 32),
            {"weight": ((768, 512), "F8_E4M3"), "weight_scale": ((768, 16), "U8")},
            id="MXFP8",
        ),
        pytest.param(
            Scheme("bitsandbytes", "nf4", "group", 64, double_quantized=True),
            {
                "weight": ((196608, 1), "U8"),
                "weight.absmax": ((6144,), "U8"),
                "weight.nested_absmax": ((24,), "F32"),
                "weight.nested_quant_map": ((256,), "F32"),
                "weight.quant_map": ((16,), "F32"),
            },
            id="bitsandbytes with quantised scales",
        ),
        pytest.param(
            Scheme("bitsandbytes", "nf4", "group", 64),
            {
                "weight": ((196608, 1), "U8"),
                "weight.absmax": ((6144,), "F32"),
                "weight.quant_map": ((16,), "F32"),
            },
            id="bitsandbytes with plain scales",
        ),
    ],
)
def test_a_module_of_768_outputs_and_512_inputs_is_stored_so(
    scheme: Scheme, expected: dict[str, tuple[tuple[int, ...], str | None]]
) -> None:
    kept = stored_module(StoredTensor("model.layers.{}.o_proj.weight", (768, 512)), scheme)
    prefix = "model.layers.{}.o_proj."
    assert {tensor.name.removeprefix(prefix): (tensor.shape, tensor.dtype) for tensor in kept} == expected


def test_experts_that_lie_together_turn_when_they_are_packed_as_mxfp4() -> None:
    plain = StoredTensor("model.layers.{}.mlp.experts.gate_up_proj", (32, 2880, 5760))
    blocks, scales = stored_module(plain, Scheme("mxfp4", "mxfp4", "group", 32))
    assert (blocks.name, blocks.shape) == (
        "model.layers.{}.mlp.experts.gate_up_proj_blocks",
        (32, 5760, 90, 16),
    )
    assert (scales.name, scales.shape) == ("model.layers.{}.mlp.experts.gate_up_proj_scales", (32, 5760, 90))
