"""The step model: what its bytes are, how parts grow, and what a faster GPU may never do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stowage.hardware.catalog import catalog
from stowage.memory.device import DeviceMemory
from stowage.memory.layout import RankLayout
from stowage.memory.quantized.kernels import kernels_of
from stowage.memory.weights import rank_weights
from stowage.model.tensors import Scheme
from stowage.performance.arithmetic import Arithmetic, arithmetic_of, peak_flops
from stowage.performance.pace import pace_of
from stowage.performance.step import StepBatch, StepTime, step_time
from stowage.performance.token_costs import touched_share
from stowage.performance.work import ExpertWork, rank_work
from tests.memory.support import version
from tests.performance.replicas import EIGHT, MIXTURE, SEVENTY, gpu_named, replica

COUNTS = st.integers(min_value=1, max_value=512)


def decode(sequences: float, context: float) -> StepBatch:
    return StepBatch(decode_sequences=sequences, decode_context=sequences * context)


def prompt(tokens: int) -> StepBatch:
    return StepBatch(tokens, tokens * tokens / 2, 1)


@pytest.mark.parametrize(
    ("folder", "ranks"),
    [
        pytest.param(EIGHT, 1, id="a dense model on one GPU"),
        pytest.param(SEVENTY, 4, id="a dense model on four"),
        pytest.param(MIXTURE, 2, id="experts on two"),
        pytest.param("openai--gpt-oss-120b", 2, id="experts in four bits"),
        pytest.param("Qwen--Qwen2.5-Coder-32B-Instruct-AWQ", 1, id="a dense model in four bits"),
        pytest.param("tiiuae--falcon-mamba-7b", 1, id="recurrent layers"),
    ],
)
def test_a_step_reads_the_bytes_that_the_ledger_holds(folder: str, ranks: int) -> None:
    serving = replica(folder, tensor_parallel_size=ranks)
    work = rank_work(serving.profile, serving.shape, serving.gpu, serving.version)
    read = (
        sum(entry.count * entry.weight_bytes for entry in work.linears)
        + sum(entry.count * entry.held * entry.weight_bytes for entry in work.experts)
        + work.head.weight_bytes
    )
    gpu = serving.gpu
    device = DeviceMemory.of_gpu(gpu)
    kernels = kernels_of(device, serving.version)
    held = rank_weights(serving.profile, RankLayout(ranks, 1, 0), "bfloat16", None, kernels).tensor_bytes
    embedding = 0 if serving.profile.tie_word_embeddings else work.head.weight_bytes
    assert read == pytest.approx(held - embedding, rel=0.02)


def test_prompts_of_twice_the_length_cost_four_times_the_attention_but_not_four_times_the_step() -> None:
    serving = replica(EIGHT)
    short, long = step_time(serving, prompt(4096)), step_time(serving, prompt(8192))
    assert long.attention == pytest.approx(4 * short.attention)
    assert 1.9 < long.weights / short.weights < 2.1
    assert long.total < 3 * short.total


@pytest.mark.parametrize("sequences", [1, 2])
def test_a_batch_of_one_or_two_is_bound_by_bandwidth_and_by_weights(sequences: int) -> None:
    serving = replica(EIGHT)
    step = step_time(serving, decode(sequences, 2000))
    assert step.compute_seconds < 0.05 * step.total
    assert step.weights > 0.6 * step.total
    assert step.kv_read < 0.1 * step.total
    ideal = 2 * 8.0e9 / serving.gpu.memory_bytes_per_second
    assert step.weights == pytest.approx(ideal, rel=0.25)


def test_four_bit_weights_help_small_batches_much_and_prompts_not() -> None:
    plain = replica("Qwen--Qwen2.5-32B-Instruct", "A100")
    packed = replica("Qwen--Qwen2.5-Coder-32B-Instruct-AWQ", "A100")
    alone = step_time(plain, decode(1, 500)).total / step_time(packed, decode(1, 500)).total
    many = step_time(plain, prompt(8192)).total / step_time(packed, prompt(8192)).total
    assert alone > 1.8
    assert many < 1.0


def test_experts_are_touched_as_choosing_without_preference_says() -> None:
    work = ExpertWork(1, 128, 128, 8, 1, 1, 1, 1, Arithmetic.FP8, False)
    assert touched_share(work, 1) == pytest.approx(8 / 128)
    assert touched_share(work, 64) == pytest.approx(1 - (1 - 8 / 128) ** 64)
    assert touched_share(replace(work, chosen=128), 1) == 1.0


def test_windowed_layers_stop_growing_with_the_context() -> None:
    serving = replica("openai--gpt-oss-120b", tensor_parallel_size=2)
    near, far = (step_time(serving, decode(16, context)).kv_read for context in (128, 12_800))
    assert 45 < far / near < 55, "half of the layers see 128 tokens, half see all"


def test_latent_caches_are_read_whole_on_every_rank() -> None:
    one, eight = (
        step_time(replica("deepseek-ai--DeepSeek-R1", "H200", tensor_parallel_size=ranks), decode(8, 4000))
        for ranks in (4, 8)
    )
    assert eight.kv_read == pytest.approx(one.kv_read, rel=0.01)


def test_pipeline_stages_wait_for_a_single_request_and_not_for_many() -> None:
    serving = replica(SEVENTY, tensor_parallel_size=4, pipeline_parallel_size=2)
    assert step_time(serving, decode(1, 1000)).bubble > 0
    assert step_time(serving, decode(2, 1000)).bubble == pytest.approx(0)
    assert step_time(serving, decode(2, 1000)).hand_over > 0


def test_tensor_parallelism_over_pcie_costs_more_than_over_nvlink() -> None:
    nvlink, pcie = (
        replica(EIGHT, "A100-80GB", tensor_parallel_size=4),
        replica(EIGHT, "A100-PCIe-80GB", tensor_parallel_size=4),
    )
    for batch in (decode(1, 1000), prompt(8192)):
        assert step_time(pcie, batch).all_reduce > 3 * step_time(nvlink, batch).all_reduce


def test_eager_prompts_wait_for_launches_and_graphs_do_not() -> None:
    graphs, eager = replica("Qwen--Qwen3-0.6B"), replica("Qwen--Qwen3-0.6B", enforce_eager=True)
    assert step_time(eager, decode(1, 100)).overhead > step_time(graphs, decode(1, 100)).overhead


@settings(max_examples=60, deadline=None)
@given(COUNTS, st.integers(min_value=16, max_value=8000), st.sampled_from([EIGHT, MIXTURE]))
def test_more_of_anything_never_takes_less_time(sequences: int, context: int, folder: str) -> None:
    serving = replica(folder)
    base = step_time(serving, decode(sequences, context)).total
    assert step_time(serving, decode(sequences + 1, context)).total >= base * (1 - 1e-9)
    assert step_time(serving, decode(sequences, context + 100)).total >= base * (1 - 1e-9)
    assert step_time(serving, replace(decode(sequences, context), prefill_tokens=64.0)).total >= base


@settings(max_examples=60, deadline=None)
@given(COUNTS, st.integers(min_value=16, max_value=8000), st.floats(min_value=1.0, max_value=4.0))
def test_a_faster_gpu_is_never_slower(sequences: int, context: int, factor: float) -> None:
    serving = replica("openai--gpt-oss-120b", tensor_parallel_size=2)
    gpu = serving.gpu
    faster = [
        replace(gpu, memory_bytes_per_second=int(gpu.memory_bytes_per_second * factor)),
        replace(gpu, bf16_flops=int((gpu.bf16_flops or 0) * factor)),
        replace(gpu, link_bytes_per_second=int(gpu.link_bytes_per_second * factor)),
        replace(gpu, integer_ops=int(gpu.integer_ops * factor)),
    ]
    for batch in (decode(sequences, context), prompt(context)):
        base = step_time(serving, batch).total
        for card in faster:
            assert step_time(replace(serving, gpu=card), batch).total <= base * (1 + 1e-9)


@settings(max_examples=40, deadline=None)
@given(COUNTS, st.integers(min_value=64, max_value=8000), st.sampled_from([1, 2]))
def test_the_quick_way_agrees_with_the_step(sequences: int, context: int, stages: int) -> None:
    serving = replica(MIXTURE, pipeline_parallel_size=stages)
    pace = pace_of(serving)
    batch = StepBatch(256.0, 256.0 * context, 1, float(sequences), float(sequences * context))
    quick = pace.quick(256.0, 256.0 * context, 1, float(sequences), float(sequences * context))
    assert quick == pytest.approx(pace.seconds(batch), rel=0.03)


def test_parts_add_up_and_scale() -> None:
    step = step_time(replica(MIXTURE, tensor_parallel_size=2), decode(32, 1000))
    assert step.plus(step).total == pytest.approx(step.scaled(2).total)
    assert StepTime().total == 0
    assert 0 < step.compute_seconds < step.total


def test_every_gpu_of_the_catalog_has_a_step_and_a_faster_floor() -> None:
    for gpu in catalog().gpus:
        serving = replace(replica(EIGHT), gpu=gpu)
        step = step_time(serving, decode(8, 1000)).total
        assert 0 < pace_of(serving).ideal_seconds(decode(8, 1000)) < step, gpu.name


FP8 = Scheme("fp8", "fp8", "tensor", activation="fp8")
INT8 = Scheme("compressed-tensors", "int8", "channel", activation="int8")
NVFP4 = Scheme("modelopt_fp4", "nvfp4", "group", activation="nvfp4")
MXFP4 = Scheme("mxfp4", "mxfp4", "group")
AWQ = Scheme("awq", "int4", "group")


@pytest.mark.parametrize(
    ("scheme", "gpu", "expected"),
    [
        pytest.param(None, "H100", Arithmetic.SIXTEEN_BIT, id="plain weights"),
        pytest.param(FP8, "H100", Arithmetic.FP8, id="fp8 where there are fp8 units"),
        pytest.param(FP8, "A100", Arithmetic.SIXTEEN_BIT, id="fp8 where there are none"),
        pytest.param(INT8, "A100", Arithmetic.INT8, id="int8 on Ampere"),
        pytest.param(INT8, "B200", Arithmetic.SIXTEEN_BIT, id="int8 kernels ended before Blackwell"),
        pytest.param(NVFP4, "B200", Arithmetic.FP4, id="fp4 on Blackwell"),
        pytest.param(NVFP4, "H100", Arithmetic.SIXTEEN_BIT, id="fp4 on Hopper is widened"),
        pytest.param(MXFP4, "B200", Arithmetic.FP8, id="mxfp4 takes fp8 activations on Blackwell"),
        pytest.param(MXFP4, "H100", Arithmetic.SIXTEEN_BIT, id="mxfp4 takes 16-bit activations on Hopper"),
        pytest.param(AWQ, "H100", Arithmetic.SIXTEEN_BIT, id="weight-only formats compute in 16 bits"),
    ],
)
def test_formats_compute_in_what_the_gpu_has(scheme: Scheme | None, gpu: str, expected: Arithmetic) -> None:
    card = gpu_named(gpu)
    assert arithmetic_of(scheme, card) is expected
    assert peak_flops(expected, card) >= peak_flops(Arithmetic.SIXTEEN_BIT, card)


def test_the_version_of_tests_is_one_that_schedules_ahead() -> None:
    assert pace_of(replica(EIGHT)).schedules_ahead
    assert not pace_of(replace(replica(EIGHT), schedules_ahead=False)).schedules_ahead
    assert version().engine == "V1"
