"""Quantised weights on a rank: against logged starts, against hand-made shapes, and kernel by kernel.

What the engine creates is compared tensor by tensor in test_weights.py; here is what it makes of them.
"""

from __future__ import annotations

import pytest

from stowage.memory.layout import RankLayout
from stowage.memory.quantized.kernels import Kernels
from stowage.memory.quantized.tensors import Matrix, RankTensor, created_tensors
from stowage.memory.weights import rank_weights
from stowage.model.tensors import Scheme
from tests.memory.support import GIB
from tests.model.support import config_of, profile_of, published

CT = "compressed-tensors"
AWQ = Scheme("awq", "int4", "group", 128, zero_point=True)
GPTQ = Scheme("gptq", "int4", "group", 128)
FP8_TENSOR = Scheme("fp8", "fp8", "tensor", activation="fp8")
FP8_BLOCK = Scheme("fp8", "fp8", "block", block=(128, 128), activation="fp8")
NVFP4 = Scheme("modelopt", "nvfp4", "group", 16, activation="nvfp4", static_activation=True)
MXFP4 = Scheme("mxfp4", "mxfp4", "group", 32)
NF4 = Scheme("bitsandbytes", "nf4", "group", 64, double_quantized=True)


@pytest.mark.parametrize(
    ("folder", "ranks", "kernels", "logged_gib", "tolerance"),
    [
        pytest.param(
            "RedHatAI--Llama-3.3-70B-Instruct-FP8-dynamic",
            2,
            Kernels(90, (0, 11, 0)),
            33.88,
            5e-3,
            id="70B FP8-dynamic tp2",
        ),
        pytest.param(
            "RedHatAI--Llama-3.3-70B-Instruct-FP8-dynamic",
            1,
            Kernels(90, (0, 11, 0)),
            67.72,
            5e-3,
            id="70B FP8-dynamic",
        ),
        pytest.param(
            "Qwen--Qwen2.5-0.5B-Instruct-AWQ",
            1,
            Kernels(86, (0, 8, 3)),
            0.4315,
            5e-4,
            id="0.5B AWQ on an A6000, vllm#16141",
        ),
        pytest.param(
            "Qwen--Qwen2.5-Coder-32B-Instruct-AWQ",
            1,
            Kernels(80, (0, 13, 0)),
            18.1425,
            8e-3,
            id="32B AWQ on an A100",
        ),
        pytest.param(
            "openai--gpt-oss-120b",
            1,
            Kernels(80, (0, 10, 1)),
            65.9651,
            2e-3,
            id="gpt-oss-120b by Marlin, vllm#23278",
        ),
        pytest.param(
            "openai--gpt-oss-120b", 4, Kernels(80, (0, 10, 1)), 17.2217, 5e-3, id="gpt-oss-120b tp4 on A100"
        ),
        pytest.param(
            "openai--gpt-oss-120b",
            1,
            Kernels(90, (0, 12, 0)),
            64.38,
            5e-3,
            id="gpt-oss-120b by Triton on H100",
        ),
        pytest.param(
            "openai--gpt-oss-20b", 1, Kernels(90, (0, 12, 0)), 13.47, 1e-2, id="gpt-oss-20b by Triton on H100"
        ),
        pytest.param(
            "deepseek-ai--DeepSeek-R1",
            8,
            Kernels(90, (0, 32, 0)),
            79.55,
            5e-3,
            id="R1 tp8, computed from its formulas",
        ),
        pytest.param(
            "meta-llama--Llama-3.1-405B-Instruct-FP8",
            8,
            Kernels(90, (0, 10, 0)),
            56.77,
            5e-3,
            id="405B fbgemm tp8, computed",
        ),
        pytest.param(
            "unsloth--meta-llama-3.1-8b-instruct-unsloth-bnb-4bit",
            1,
            Kernels(75, (0, 8, 0)),
            5.5976,
            0.015,
            id="8B bitsandbytes on a T4",
        ),
        pytest.param(
            "unsloth--phi-4-bnb-4bit",
            1,
            Kernels(75, (0, 8, 0)),
            8.492,
            0.015,
            id="phi-4 bitsandbytes on a T4",
        ),
        pytest.param(
            "unsloth--qwen2.5-3b-instruct-unsloth-bnb-4bit",
            1,
            Kernels(75, (0, 8, 0)),
            2.216,
            0.01,
            id="3B bitsandbytes on a T4",
        ),
    ],
)
def test_loaded_weights_are_those_in_the_log(
    folder: str, ranks: int, kernels: Kernels, logged_gib: float, tolerance: float
) -> None:
    profile = published(folder)
    weights = rank_weights(profile, RankLayout(ranks, 1, 0), profile.dtype, None, kernels)
    assert weights.block_bytes / GIB == pytest.approx(logged_gib, abs=tolerance)


def test_the_405b_with_16_kv_heads_is_that_of_vllm_6746() -> None:
    profile = profile_of(config_of("meta-llama--Llama-3.1-405B-Instruct-FP8"), num_key_value_heads=16)
    weights = rank_weights(profile, RankLayout(8, 1, 0), "bfloat16", None, Kernels(90, (0, 8, 0)))
    assert weights.block_bytes / GIB == pytest.approx(57.752, abs=1e-3)


def test_experts_of_r1_are_whole_under_expert_parallelism() -> None:
    layout = RankLayout(16, 1, 0, expert_parallel=True)
    weights = rank_weights(
        published("deepseek-ai--DeepSeek-R1"), layout, "bfloat16", None, Kernels(90, (0, 8, 4))
    )
    assert weights.block_bytes / GIB == pytest.approx(40.3174, abs=2e-3)  # vllm#16692


def shapes(tensors: tuple[RankTensor, ...]) -> dict[str, tuple[tuple[int, ...], int | None]]:
    """Give shape and element bytes by the last part of each name."""
    return {tensor.name.rpartition(".")[2]: (tensor.shape, tensor.element_bytes) for tensor in tensors}


LINEAR = Matrix("m", 768, 512, 3)
UP = Matrix("e", 1536, 512, 2, experts=4, which="w13_")
DOWN = Matrix("e", 512, 768, 1, experts=4, which="w2_")


@pytest.mark.parametrize(
    ("matrix", "scheme", "expected"),
    [
        pytest.param(
            LINEAR,
            AWQ,
            {"qweight": ((512, 96), 4), "qzeros": ((4, 96), 4), "scales": ((4, 768), None)},
            id="AWQ",
        ),
        pytest.param(
            LINEAR,
            GPTQ,
            {"qweight": ((64, 768), 4), "qzeros": ((4, 96), 4), "scales": ((4, 768), None)},
            id="GPTQ",
        ),
        pytest.param(
            LINEAR,
            FP8_TENSOR,
            {"weight": ((768, 512), 1), "weight_scale": ((3,), 4)},
            id="fp8 keeps a scale for each part",
        ),
        pytest.param(
            LINEAR,
            FP8_BLOCK,
            {"weight": ((768, 512), 1), "weight_scale_inv": ((6, 4), 4)},
            id="fp8 in blocks",
        ),
        pytest.param(
            Matrix("m", 700, 500, 1),
            FP8_BLOCK,
            {"weight": ((700, 500), 1), "weight_scale_inv": ((6, 4), 4)},
            id="ragged blocks are rounded up",
        ),
        pytest.param(
            UP,
            FP8_TENSOR,
            {"w13_weight": ((4, 1536, 512), 1), "w13_weight_scale": ((4, 2), 4)},
            id="experts have scales of their own",
        ),
        pytest.param(
            DOWN,
            FP8_TENSOR,
            {"w2_weight": ((4, 512, 768), 1), "w2_weight_scale": ((4,), 4)},
            id="one scale an expert for down",
        ),
        pytest.param(
            Matrix("e", 384, 512, 2, 4, "w13_"),
            FP8_BLOCK,
            {"w13_weight": ((4, 384, 512), 1), "w13_weight_scale_inv": ((4, 6, 8), 4)},
            id="expert blocks are split where a rank cuts them",
        ),
        pytest.param(
            LINEAR,
            NVFP4,
            {
                "weight": ((768, 256), 1),
                "weight_scale": ((768, 32), 1),
                "weight_scale_2": ((3,), 4),
                "input_scale": ((3,), 4),
            },
            id="NVFP4",
        ),
        pytest.param(
            UP,
            MXFP4,
            {"w13_weight": ((4, 1536, 256), 1), "w13_weight_scale": ((4, 1536, 16), 1)},
            id="MXFP4 experts",
        ),
        pytest.param(
            UP,
            GPTQ,
            {
                "w13_qweight": ((4, 64, 1536), 4),
                "w13_qzeros": ((4, 4, 192), 4),
                "w13_scales": ((4, 4, 1536), None),
                "w13_bias": ((4, 1536), None),
            },
            id="GPTQ experts, with a bias that is created anyway",
        ),
        pytest.param(LINEAR, NF4, {"weight": ((196608, 1), 1)}, id="bitsandbytes creates the values only"),
        pytest.param(
            LINEAR,
            Scheme("online", "fp8", "tensor"),
            {"weight": ((768, 512), 1), "weight_scale": ((1,), 4)},
            id="quantised while loading: one scale",
        ),
        pytest.param(
            DOWN,
            Scheme("online", "int8", "channel"),
            {"w2_weight": ((4, 512, 768), 1), "w2_scale": ((4, 512), 4)},
            id="8-bit experts while loading",
        ),
    ],
)
def test_created_tensors_have_these_shapes(
    matrix: Matrix, scheme: Scheme, expected: dict[str, tuple[tuple[int, ...], int | None]]
) -> None:
    assert shapes(created_tensors(matrix, scheme)) == expected
