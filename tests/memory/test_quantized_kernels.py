"""What kernels make of quantised weights once they are loaded, and which kernel it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import stowage.memory
from stowage.memory.device import DeviceMemory
from stowage.memory.layout import RankLayout
from stowage.memory.quantized.effects import EFFECTS, Loaded, expert_bias, marlin_padded
from stowage.memory.quantized.kernels import Kernels, chosen_kernel, kernels_of
from stowage.memory.quantized.tensors import Matrix, RankTensor
from stowage.memory.weights import rank_tensors, rank_weights
from stowage.model.tensors import Scheme
from tests.memory.support import A100, B200, H100, NODE, version
from tests.memory.test_quantized import (
    AWQ,
    CT,
    FP8_BLOCK,
    FP8_TENSOR,
    GPTQ,
    LINEAR,
    MXFP4,
    NF4,
    NVFP4,
    UP,
    shapes,
)
from tests.model.support import TINY, profile_of


@pytest.mark.parametrize(
    ("effect", "matrix", "scheme", "align", "expected"),
    [
        pytest.param(
            "marlin",
            Matrix("m", 720, 704, 1),
            Scheme("gptq", "int4", "group", 64),
            (1, 1),
            {"qweight": ((88, 768), 4), "scales": ((11, 768), None)},
            id="Marlin pads to its cheaper tile and drops unused zero points",
        ),
        pytest.param(
            "marlin",
            LINEAR,
            AWQ,
            (1, 1),
            {"qweight": ((512, 96), 4), "qzeros": ((4, 96), 4), "scales": ((4, 768), None)},
            id="AWQ repacked has the same size",
        ),
        pytest.param(
            "marlin_unpadded",
            Matrix("m", 720, 704, 1),
            Scheme("gptq", "int4", "group", 64),
            (1, 1),
            {"qweight": ((88, 720), 4), "scales": ((11, 720), None)},
            id="older engines do not pad",
        ),
        pytest.param(
            "marlin",
            LINEAR,
            NVFP4,
            (1, 1),
            {"weight": ((768, 256), 1), "weight_scale": ((768, 32), 1), "weight_scale_2": ((), 4)},
            id="weight-only NVFP4 keeps one global scale",
        ),
        pytest.param(
            "marlin_experts",
            Matrix("e", 2 * 720, 512, 2, 4, "w13_"),
            Scheme(CT, "int4", "group", 16),
            (1, 1),
            {
                "w13_weight_packed": ((4, 1536, 64), 4),
                "w13_weight_scale": ((4, 1536, 32), None),
                "w13_weight_shape": ((4, 2), None),
            },
            id="Marlin pads each half of gate and up",
        ),
        pytest.param(
            "marlin_experts",
            Matrix("e", 512, 720, 1, 4, "w2_"),
            Scheme(CT, "int4", "group", 16),
            (1, 1),
            {
                "w2_weight_packed": ((4, 512, 96), 4),
                "w2_weight_scale": ((4, 512, 48), None),
                "w2_weight_shape": ((4, 2), None),
            },
            id="and the inputs of down",
        ),
        pytest.param(
            "machete",
            LINEAR,
            AWQ,
            (1, 1),
            {"qweight": ((512, 96), 4), "qzeros": ((4, 768), None), "scales": ((4, 768), None)},
            id="Machete widens zero points",
        ),
        pytest.param(
            "machete",
            LINEAR,
            GPTQ,
            (1, 1),
            {"qweight": ((64, 768), 4), "qzeros": ((4, 96), 4), "scales": ((4, 768), None)},
            id="and keeps unused ones",
        ),
        pytest.param(
            "marlin_fp8",
            LINEAR,
            FP8_TENSOR,
            (1, 1),
            {"weight": ((768, 512), 1), "weight_scale": ((1, 768), None)},
            id="weight-only fp8 has a scale a channel",
        ),
        pytest.param(
            "marlin_fp8",
            LINEAR,
            FP8_BLOCK,
            (1, 1),
            {"weight": ((768, 512), 1), "weight_scale_inv": ((4, 768), None)},
            id="weight-only blocks repeat scales for every output",
        ),
        pytest.param(
            "marlin_fp8_experts",
            UP,
            FP8_BLOCK,
            (1, 1),
            {"w13_weight": ((4, 1536, 512), 1), "w13_weight_scale_inv": ((4, 4, 1536), None)},
            id="experts likewise",
        ),
        pytest.param(
            "packed_powers",
            Matrix("m", 770, 1280, 1),
            FP8_BLOCK,
            (1, 1),
            {"weight": ((770, 1280), 1), "weight_scale_inv": ((772, 3), 4)},
            id="DeepGEMM packs four powers of two into a word",
        ),
        pytest.param(
            "one_scale",
            LINEAR,
            FP8_TENSOR,
            (1, 1),
            {"weight": ((768, 512), 1), "weight_scale": ((), 4)},
            id="native fp8 has one scale",
        ),
        pytest.param(
            "swizzled",
            Matrix("m", 700, 528, 1),
            NVFP4,
            (32, 32),
            {
                "weight": ((704, 272), 1),
                "weight_scale": ((768, 36), 1),
                "weight_scale_2": ((1,), 4),
                "input_scale": ((1,), 4),
            },
            id="CUTLASS pads values to 32 and scales to tiles",
        ),
        pytest.param(
            "swizzled",
            Matrix("e", 928, 512, 1, 4, "w13_", gated=False),
            NVFP4,
            (64, 32),
            {
                "w13_weight": ((4, 1024, 256), 1),
                "w13_weight_scale": ((4, 1024, 32), 1),
                "w13_weight_scale_2": ((4, 1), 4),
                "w13_input_scale": ((4, 1), 4),
            },
            id="experts without a gate pad to twice as much",
        ),
        pytest.param(
            "padded_experts",
            Matrix("e", 2 * 720, 2880, 2, 4, "w13_"),
            MXFP4,
            (128, 256),
            {"w13_weight": ((4, 1536, 1536), 1), "w13_weight_scale": ((4, 1536, 96), 1)},
            id="MXFP4 pads inner and hidden size",
        ),
        pytest.param(
            "padded_experts",
            Matrix("e", 2880, 720, 1, 4, "w2_"),
            MXFP4,
            (128, 256),
            {"w2_weight": ((4, 3072, 384), 1), "w2_weight_scale": ((4, 3072, 24), 1)},
            id="and the other way round for down",
        ),
        pytest.param(
            "swizzled_hopper",
            Matrix("e", 5760, 2880, 2, 4, "w13_"),
            MXFP4,
            (64, 1),
            {"w13_weight": ((4, 5760, 1440), 1), "w13_weight_scale": ((4, 5888, 90), 1)},
            id="Triton on Hopper pads scales to 256 rows",
        ),
        pytest.param(
            "swizzled_hopper_in_fours",
            Matrix("e", 5760, 2880, 2, 4, "w13_"),
            MXFP4,
            (64, 1),
            {"w13_weight": ((4, 5760, 1440), 1), "w13_weight_scale": ((4, 5888, 92), 1)},
            id="and later their groups to four",
        ),
        pytest.param(
            "swizzled_hopper_squared",
            Matrix("e", 2880, 1440, 1, 4, "w2_"),
            MXFP4,
            (64, 1),
            {
                "w2_weight": ((4, 2880, 768), 1),
                "w2_weight_scale": ((4, 3072, 46), 1),
                "w2_weight_scale_as_loaded": ((4, 2880, 46), 1),
            },
            id="for a while values were padded to 64 both ways",
        ),
        pytest.param(
            "swizzled_hopper_twice",
            Matrix("e", 5760, 2880, 2, 4, "w13_"),
            MXFP4,
            (64, 1),
            {
                "w13_weight": ((4, 5760, 1440), 1),
                "w13_weight_scale": ((4, 5888, 90), 1),
                "w13_weight_scale_as_loaded": ((4, 5760, 90), 1),
            },
            id="older releases keep the loaded scales as well",
        ),
        pytest.param(
            "block_scales",
            LINEAR,
            NF4,
            (1, 1),
            {"weight": ((196608, 1), 1), "absmax": ((6144,), 4), "quant_map": ((3, 16), 4)},
            id="bitsandbytes adds a scale for 64 values",
        ),
        pytest.param(
            "block_scales_nested",
            LINEAR,
            NF4,
            (1, 1),
            {
                "weight": ((196608, 1), 1),
                "absmax": ((6144,), 1),
                "nested_absmax": ((24,), 4),
                "nested_quant_map": ((3, 256), 4),
                "quant_map": ((3, 16), 4),
            },
            id="which older releases keep in 8 bits",
        ),
    ],
)
def test_kernels_make_this_of_the_loaded_tensors(
    effect: str,
    matrix: Matrix,
    scheme: Scheme,
    align: tuple[int, int],
    expected: dict[str, tuple[tuple[int, ...], int | None]],
) -> None:
    assert shapes(EFFECTS[effect](Loaded(matrix, scheme, align))) == expected


@pytest.mark.parametrize(
    ("rows", "columns", "group", "expected"),
    [
        pytest.param(128, 128, 128, (128, 128), id="aligned stays"),
        pytest.param(64, 128, 32, (64, 128), id="64 × 128 is a tile"),
        pytest.param(128, 64, 32, (128, 64), id="128 × 64 is one too"),
        pytest.param(65, 64, 32, (128, 64), id="rows are padded where that is less"),
        pytest.param(64, 65, 1, (64, 128), id="columns where that is less"),
        pytest.param(64, 96, 96, (128, 192), id="groups stay whole"),
    ],
)
def test_marlin_pads_to_the_smaller_tile(
    rows: int, columns: int, group: int, expected: tuple[int, int]
) -> None:
    assert marlin_padded(rows, columns, group) == expected


@pytest.mark.parametrize(
    ("matrix", "scheme", "kernels", "effect"),
    [
        pytest.param(
            LINEAR,
            FP8_TENSOR,
            Kernels(80, (0, 32, 0)),
            "marlin_fp8",
            id="fp8 on an A100 is weight-only, never native",
        ),
        pytest.param(
            LINEAR, FP8_TENSOR, Kernels(89, (0, 32, 0)), "one_scale", id="fp8 is native from 8.9 on"
        ),
        pytest.param(LINEAR, FP8_BLOCK, Kernels(90, (0, 32, 0)), None, id="blocks on Hopper stay"),
        pytest.param(
            LINEAR, FP8_BLOCK, Kernels(100, (0, 32, 0)), "packed_powers", id="blocks on B200 are packed"
        ),
        pytest.param(
            Matrix("m", 96, 512, 1),
            FP8_BLOCK,
            Kernels(100, (0, 32, 0)),
            None,
            id="unless DeepGEMM cannot take the shape",
        ),
        pytest.param(
            LINEAR, AWQ, Kernels(90, (0, 21, 0)), "marlin_unpadded", id="AWQ on Hopper is Marlin up to 0.21"
        ),
        pytest.param(LINEAR, AWQ, Kernels(90, (0, 22, 0)), "machete", id="and Machete from 0.22 on"),
        pytest.param(
            LINEAR, GPTQ, Kernels(90, (0, 10, 0)), "machete", id="GPTQ on Hopper has long been Machete"
        ),
        pytest.param(
            LINEAR,
            Scheme("gptq", "int4", "group", 32),
            Kernels(90, (0, 32, 0)),
            "marlin",
            id="groups of 32 are Marlin's",
        ),
        pytest.param(LINEAR, GPTQ, Kernels(75, (0, 32, 0)), "marlin", id="a T4 has Marlin in new engines"),
        pytest.param(LINEAR, GPTQ, Kernels(75, (0, 10, 0)), None, id="and not in old ones"),
        pytest.param(UP, GPTQ, Kernels(90, (0, 32, 0)), "marlin_experts", id="integer experts are Marlin's"),
        pytest.param(
            LINEAR, NVFP4, Kernels(90, (0, 32, 0)), "marlin", id="NVFP4 below Blackwell is weight-only"
        ),
        pytest.param(LINEAR, NVFP4, Kernels(120, (0, 32, 0)), "swizzled", id="NVFP4 on Blackwell is native"),
        pytest.param(
            LINEAR,
            Scheme(CT, "nvfp4", "group", 16),
            Kernels(100, (0, 32, 0)),
            "marlin",
            id="weight-only NVFP4 is Marlin's everywhere",
        ),
        pytest.param(UP, MXFP4, Kernels(80, (0, 32, 0)), "padded_experts", id="MXFP4 on an A100"),
        pytest.param(
            UP,
            MXFP4,
            Kernels(90, (0, 10, 2)),
            "padded_experts_wide_bias",
            id="MXFP4 on Hopper before the swizzle",
        ),
        pytest.param(
            UP, MXFP4, Kernels(90, (0, 16, 0)), "swizzled_hopper_twice", id="MXFP4 on Hopper, scales twice"
        ),
        pytest.param(
            UP, MXFP4, Kernels(90, (0, 18, 1)), "swizzled_hopper_squared", id="MXFP4 on Hopper, values padded"
        ),
        pytest.param(
            UP,
            MXFP4,
            Kernels(90, (0, 24, 0)),
            "swizzled_hopper_twice",
            id="MXFP4 on Hopper, scales twice again",
        ),
        pytest.param(
            UP, MXFP4, Kernels(90, (0, 26, 0)), "swizzled_hopper", id="MXFP4 on Hopper, scales once"
        ),
        pytest.param(
            UP,
            MXFP4,
            Kernels(90, (0, 32, 0)),
            "swizzled_hopper_in_fours",
            id="MXFP4 on Hopper, groups in fours",
        ),
        pytest.param(UP, MXFP4, Kernels(120, (0, 32, 0)), "padded_experts", id="MXFP4 on consumer Blackwell"),
        pytest.param(LINEAR, NF4, Kernels(75, (0, 8, 5)), "block_scales_nested", id="bitsandbytes in 0.8"),
        pytest.param(LINEAR, NF4, Kernels(75, (0, 9, 2)), "block_scales", id="bitsandbytes in 0.9"),
    ],
)
def test_the_kernel_follows_layout_gpu_and_release(
    matrix: Matrix, scheme: Scheme, kernels: Kernels, effect: str | None
) -> None:
    row = chosen_kernel(matrix, scheme, kernels)
    assert (row.effect if row else None) == effect


def test_every_row_names_an_effect_and_a_source() -> None:
    text = (Path(stowage.memory.__file__).parent / "quantized" / "kernels.toml").read_text(encoding="utf-8")
    assert set(re.findall(r'^effect = "(\w+)"', text, re.M)) == set(EFFECTS)
    assert text.count("[[kernel]]") == text.count("\nsource = ") == text.count("\nhow = ")


@pytest.mark.parametrize(
    ("effect", "name", "expected"),
    [
        pytest.param("padded_experts", "e.w13_bias", ((4, 1536), None), id="a bias of gate and up"),
        pytest.param(
            "padded_experts", "e.w2_bias", ((4, 1536), None), id="a bias of down follows the hidden size"
        ),
        pytest.param("swizzled_hopper", "e.w13_bias", ((4, 1536), 4), id="Triton keeps biases in 32 bits"),
        pytest.param(
            "marlin_experts", "e.w13_bias", ((4, 1440), None), id="other kernels leave biases alone"
        ),
    ],
)
def test_biases_of_experts_are_padded_with_them(
    effect: str, name: str, expected: tuple[tuple[int, ...], int | None]
) -> None:
    bias = expert_bias(RankTensor(name, (4, 1440), None, "bias"), effect, (128, 256))
    assert (bias.shape, bias.element_bytes) == expected


@pytest.mark.parametrize(
    ("device", "release", "expected"),
    [
        pytest.param(A100, "0.11.0", (80, (0, 11, 0)), id="A100"),
        pytest.param(H100, "0.32.0", (90, (0, 32, 0)), id="H100"),
        pytest.param(B200, "0.32.0", (100, (0, 32, 0)), id="B200"),
    ],
)
def test_gpu_and_release_choose_kernels(
    device: DeviceMemory, release: str, expected: tuple[int, tuple[int, int, int]]
) -> None:
    kernels = kernels_of(device, version(release))
    assert kernels is not None
    assert (kernels.capability, kernels.release) == expected


def test_cpu_nodes_keep_tensors_as_created() -> None:
    assert kernels_of(NODE, version()) is None


def test_placeholders_of_cache_scales_are_gone_after_loading() -> None:
    profile = profile_of(TINY, quantization_config={"quant_method": "fp8", "activation_scheme": "dynamic"})
    created = {name for name, _ in rank_tensors(profile, RankLayout(1, 1, 0))}
    loaded = {name for name, _ in rank_tensors(profile, RankLayout(1, 1, 0), Kernels(90, (0, 32, 0)))}
    assert "model.layers.2.self_attn.attn.prob_scale" in created
    assert created - loaded == {name for name in created if re.search(r"attn\.[a-z]+_scale$", name)}


def test_a_quantised_rank_takes_the_dtype_of_the_run_for_its_scales() -> None:
    profile = profile_of(TINY, quantization_config={"quant_method": "awq", "bits": 4, "group_size": 64})
    half = rank_weights(profile, RankLayout(1, 1, 0), "float16").tensor_bytes
    assert rank_weights(profile, RankLayout(1, 1, 0), "bfloat16").tensor_bytes == half
    scales = [shape for name, shape in rank_tensors(profile, RankLayout(1, 1, 0)) if name.endswith("scales")]
    assert len(scales) == 4 * profile.num_layers
