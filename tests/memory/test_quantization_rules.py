"""Which quantised models an engine takes: releases, GPUs, and shapes that cut no block or group."""

from __future__ import annotations

from typing import Any

import pytest

from stowage.api.refusal import Refusal
from stowage.memory.budget import ledger
from stowage.memory.device import DeviceMemory
from stowage.memory.layout import RankLayout
from stowage.memory.ledger import Ledger
from stowage.memory.quantized.fit import misfit
from stowage.memory.quantized.rules import check_quantization, least_capability
from stowage.model.profile import ModelProfile
from stowage.model.tensors import Linear, ParameterTensor, Place, Scheme, Shard
from tests.memory.support import A100, B200, GIB, H100, L4, T4, gpu, shape, version
from tests.model.support import TINY, config_of, profile_of, published

V100 = gpu(31.7, "Tesla-V100", (7, 0))
CT = "compressed-tensors"


def tiny(method: str, **fields: Any) -> ModelProfile:
    """Make a small quantised model."""
    return profile_of(TINY, quantization_config={"quant_method": method, **fields})


FP8 = tiny("fp8", activation_scheme="dynamic")
BLOCKS = tiny("fp8", activation_scheme="dynamic", weight_block_size=[64, 64])
AWQ = tiny("awq", bits=4, group_size=64)
ORDERED = tiny("gptq", bits=4, group_size=64, desc_act=True, sym=True)
BNB = tiny("bitsandbytes", load_in_4bit=True, bnb_4bit_quant_type="nf4")
MIXED = tiny(
    "modelopt",
    quant_algo="MIXED_PRECISION",
    quantized_layers={"model.layers.0.self_attn.o_proj": {"quant_algo": "FP8"}},
)
MODELOPT = tiny("modelopt", quant_algo="FP8")


def refusal_of(
    profile: ModelProfile, device: DeviceMemory = H100, release: str = "0.32.0", **changes: Any
) -> Refusal | None:
    """Ask the rules about a shape."""
    return check_quantization(profile, shape(**changes), device, version(release))


@pytest.mark.parametrize(
    ("profile", "device", "release"),
    [
        pytest.param(FP8, A100, "0.32.0", id="fp8 on an A100 is taken, weight-only"),
        pytest.param(FP8, T4, "0.32.0", id="fp8 on a T4 in new engines"),
        pytest.param(BLOCKS, A100, "0.10.0", id="fp8 blocks on an A100"),
        pytest.param(AWQ, T4, "0.8.5", id="AWQ on a T4 in old engines"),
        pytest.param(ORDERED, H100, "0.29.0", id="activation order before 0.30"),
        pytest.param(BNB, T4, "0.27.1", id="bitsandbytes in its last release"),
        pytest.param(BNB, V100, "0.8.5", id="bitsandbytes on a V100"),
        pytest.param(MIXED, H100, "0.17.1", id="mixed precision in its first release"),
        pytest.param(MODELOPT, A100, "0.28.0", id="ModelOpt FP8 on an A100 in new engines"),
        pytest.param(profile_of(TINY), V100, "0.8.5", id="plain models have no such rules"),
    ],
)
def test_the_engine_takes(profile: ModelProfile, device: DeviceMemory, release: str) -> None:
    assert refusal_of(profile, device, release) is None


@pytest.mark.parametrize(
    ("profile", "device", "release", "reason", "said"),
    [
        pytest.param(
            BNB, H100, "0.28.0", "UnsupportedQuantization", "0.27.1", id="bitsandbytes is gone from 0.28 on"
        ),
        pytest.param(
            MIXED, H100, "0.16.0", "UnsupportedQuantization", "0.17.0", id="mixed precision before 0.17"
        ),
        pytest.param(
            published("openai--gpt-oss-20b"),
            H100,
            "0.9.2",
            "UnsupportedQuantization",
            "0.10.1",
            id="MXFP4 before 0.10.1",
        ),
        pytest.param(
            ORDERED, H100, "0.30.0", "UnsupportedQuantization", "ordering", id="activation order from 0.30 on"
        ),
        pytest.param(FP8, T4, "0.10.0", "UnsupportedGPU", "8.0", id="fp8 on a T4 in old engines"),
        pytest.param(FP8, V100, "0.32.0", "UnsupportedGPU", "7.5", id="fp8 on a V100"),
        pytest.param(BLOCKS, A100, "0.8.5", "UnsupportedGPU", "8.9", id="fp8 blocks on an A100 in 0.8"),
        pytest.param(
            MODELOPT, A100, "0.26.0", "UnsupportedGPU", "8.9", id="ModelOpt FP8 on an A100 before 0.27"
        ),
        pytest.param(
            published("openai--gpt-oss-20b"), T4, "0.32.0", "UnsupportedGPU", "8.0", id="MXFP4 on a T4"
        ),
    ],
)
def test_the_engine_refuses(
    profile: ModelProfile, device: DeviceMemory, release: str, reason: str, said: str
) -> None:
    answer = refusal_of(profile, device, release)
    assert answer is not None
    assert answer.reason.value == reason
    assert said in answer.sentence


def test_mxfp4_runs_in_bfloat16_only() -> None:
    answer = refusal_of(published("openai--gpt-oss-20b"), dtype="float16")
    assert answer is not None
    assert answer.reason.value == "UnsupportedDtype"


def test_bitsandbytes_checkpoints_load_on_one_rank() -> None:
    answer = refusal_of(BNB, release="0.20.0", tensor_parallel_size=2)
    assert answer is not None
    assert "TP 1" in answer.hint
    assert refusal_of(BNB, release="0.20.0", pipeline_parallel_size=2) is None


@pytest.mark.parametrize(
    ("scheme", "release", "least"),
    [
        pytest.param(Scheme("fp8", "fp8", "tensor"), (0, 13, 0), 80, id="fp8 before 0.14"),
        pytest.param(Scheme("fp8", "fp8", "tensor"), (0, 14, 0), 75, id="fp8 since 0.14"),
        pytest.param(Scheme(CT, "int4", "group", 128), (0, 11, 1), 80, id="W4A16 before 0.12"),
        pytest.param(Scheme(CT, "int4", "group", 128), (0, 12, 0), 75, id="W4A16 since 0.12"),
        pytest.param(
            Scheme(CT, "int8", "channel", activation="int8"), (0, 8, 5), 75, id="int8 for both operands"
        ),
        pytest.param(
            Scheme(CT, "nvfp4", "group", 16), (0, 15, 1), 80, id="NVFP4 of compressed-tensors before 0.16"
        ),
        pytest.param(Scheme("modelopt", "nvfp4", "group", 16), (0, 8, 5), 100, id="NVFP4 of ModelOpt in 0.8"),
        pytest.param(Scheme("modelopt", "nvfp4", "group", 16), (0, 32, 0), 75, id="NVFP4 of ModelOpt now"),
        pytest.param(Scheme("modelopt", "mxfp8", "group", 32), (0, 19, 1), 100, id="MXFP8 before 0.20"),
        pytest.param(Scheme("gptq", "int4", "group", 128), (0, 21, 0), 60, id="GPTQ has an old kernel"),
        pytest.param(Scheme("gptq", "int4", "group", 128), (0, 32, 0), 60, id="which stays the last resort"),
        pytest.param(Scheme("fbgemm_fp8", "fp8", "channel"), (0, 32, 0), 80, id="fbgemm"),
    ],
)
def test_layouts_need_this_capability(scheme: Scheme, release: tuple[int, int, int], least: int) -> None:
    assert least_capability(scheme, release) == least


QWEN3_FP8 = published("synthetic--qwen3-30b-fp8-block")


@pytest.mark.parametrize(
    ("profile", "release", "changes"),
    [
        pytest.param(
            QWEN3_FP8, "0.30.0", {"tensor_parallel_size": 2}, id="384 values of an expert are three blocks"
        ),
        pytest.param(
            QWEN3_FP8,
            "0.30.0",
            {"tensor_parallel_size": 4, "enable_expert_parallel": True},
            id="whole experts cut nothing",
        ),
        pytest.param(QWEN3_FP8, "0.31.0", {"tensor_parallel_size": 4}, id="0.31 splits the blocks"),
        pytest.param(
            published("deepseek-ai--DeepSeek-R1"),
            "0.32.0",
            {"tensor_parallel_size": 16},
            id="R1 goes to TP 16",
        ),
        pytest.param(AWQ, "0.32.0", {"tensor_parallel_size": 4}, id="AWQ groups of 64 at 64 inputs a rank"),
        pytest.param(
            published("synthetic--qwen3-30b-ct-w4a16"),
            "0.32.0",
            {"tensor_parallel_size": 4},
            id="groups of 32 in 192 inputs",
        ),
    ],
)
def test_these_shapes_fit(profile: ModelProfile, release: str, changes: dict[str, Any]) -> None:
    assert refusal_of(profile, release=release, **changes) is None


def changed(fixture: str, **fields: Any) -> ModelProfile:
    """Read a fixture with other fields of its configuration."""
    return profile_of(config_of(fixture), **fields)


@pytest.mark.parametrize(
    ("profile", "release", "changes", "said", "hint"),
    [
        pytest.param(
            QWEN3_FP8,
            "0.30.0",
            {"tensor_parallel_size": 4},
            "192",
            "This works with TP 1, 2 or with enable_expert_parallel.",
            id="TP 4 leaves 192 values of an expert: 1.5 blocks",
        ),
        pytest.param(
            QWEN3_FP8,
            "0.30.0",
            {"tensor_parallel_size": 8},
            "96",
            "This works with TP 1, 2 or with enable_expert_parallel.",
            id="TP 8 leaves 96",
        ),
        pytest.param(
            changed("synthetic--qwen3-30b-fp8-block", moe_intermediate_size=752),
            "0.32.0",
            {},
            "752",
            "Use another checkpoint.",
            id="an expert that is no multiple of 32 fits nowhere",
        ),
        pytest.param(
            BLOCKS,
            "0.13.0",
            {"tensor_parallel_size": 8},
            "32 outputs",
            "TP 1, 2",
            id="blocks of 64 against a head of 32, while fused projections may not cut them",
        ),
        pytest.param(
            BLOCKS,
            "0.32.0",
            {"tensor_parallel_size": 8},
            "32 inputs",
            "TP 1, 2",
            id="blocks of 64 against a head of 32, in the output projection only",
        ),
        pytest.param(
            tiny("fp8", activation_scheme="dynamic", weight_block_size=[32, 128]),
            "0.32.0",
            {"tensor_parallel_size": 4},
            "64 inputs",
            "TP 1, 2",
            id="the inputs of o_proj",
        ),
        pytest.param(
            tiny("awq", bits=4, group_size=128),
            "0.32.0",
            {"tensor_parallel_size": 4},
            "group of 128",
            "TP 1, 2",
            id="a group that a rank cuts",
        ),
        pytest.param(
            published("synthetic--qwen3-30b-ct-w4a16"),
            "0.32.0",
            {"tensor_parallel_size": 16},
            "group of 32",
            "TP 1, 2, 4, 8",
            id="48 values of an expert in groups of 32",
        ),
        pytest.param(
            profile_of(
                TINY,
                intermediate_size=528,
                quantization_config={"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": []},
            ),
            "0.32.0",
            {"tensor_parallel_size": 2},
            "multiple of 16",
            "TP 1",
            id="NVFP4 scales cover 16 inputs",
        ),
        pytest.param(
            profile_of(
                TINY,
                intermediate_size=544,
                quantization_config={"quant_method": "modelopt", "quant_algo": "MXFP8"},
            ),
            "0.32.0",
            {"tensor_parallel_size": 2},
            "multiple of 32",
            "TP 1",
            id="MXFP8 scales cover 32",
        ),
        pytest.param(
            profile_of(
                TINY,
                intermediate_size=544,
                quantization_config={
                    "quant_method": "gptq",
                    "bits": 4,
                    "group_size": 32,
                    "desc_act": False,
                    "sym": True,
                },
            ),
            "0.22.1",
            {},
            "multiples of 64",
            "Use another",
            id="kernels before 0.24 do not pad",
        ),
    ],
)
def test_these_shapes_are_refused_with_what_would_work(
    profile: ModelProfile, release: str, changes: dict[str, Any], said: str, hint: str
) -> None:
    answer = refusal_of(profile, release=release, **changes)
    assert answer is not None
    assert answer.reason.value == "InvalidParallelism"
    assert said in answer.message
    assert hint in answer.hint


def test_the_ledger_asks_these_rules() -> None:
    answer = ledger(QWEN3_FP8, shape(tensor_parallel_size=4), H100, version("0.30.0"))
    assert isinstance(answer, Refusal)
    assert "enable_expert_parallel" in answer.hint


def test_an_fp8_model_on_an_a100_is_sized_as_weight_only() -> None:
    profile = published("RedHatAI--Llama-3.3-70B-Instruct-FP8-dynamic")
    weights = {}
    for device in (A100, H100):
        answer = ledger(profile, shape(tensor_parallel_size=2, max_model_len=8192), device, version())
        assert isinstance(answer, Ledger), answer
        weights[device.name] = answer.weights_bytes
    # Half of the 16-bit model plus scales; Marlin's are 16 bits a channel, the native ones 32.
    assert weights[A100.name] / GIB == pytest.approx(33.87, abs=0.02)
    assert 0 < weights[H100.name] - weights[A100.name] < 0.02 * GIB


def test_nvfp4_runs_on_every_gpu_from_turing_on() -> None:
    profile = tiny("modelopt", quant_algo="NVFP4", ignore=["lm_head"])
    assert [refusal_of(profile, device) for device in (T4, A100, L4, H100, B200)] == [None] * 5


@pytest.mark.parametrize(
    ("ranks", "said"),
    [
        pytest.param(1, None, id="whole on one rank it may end within a block"),
        pytest.param(2, "100 outputs", id="divided it may not"),
    ],
)
def test_a_column_of_one_part_may_be_ragged_on_one_rank(ranks: int, said: str | None) -> None:
    scheme = Scheme("fp8", "fp8", "block", block=(128, 128))
    linear = Linear("m.q_b_proj", ("m.q_b_proj",), (200,), scheme=scheme)
    tensor = ParameterTensor("m.q_b_proj.weight", (200, 256), Shard.COLUMNS, Place.LAYER, linear=linear)
    problem = misfit(tensor, RankLayout(ranks, 1, 0), "bfloat16", (0, 32, 0))
    assert problem is None if said is None else said in str(problem)
