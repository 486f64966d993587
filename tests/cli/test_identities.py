"""What levers must hold for generated workloads, beside `tests/performance`: shapes, prompts and pinned caches."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stowage.hardware.gpu import Gpu
from stowage.performance.levers import judged, levers
from stowage.performance.levers.effect import LeverVerdict
from stowage.performance.levers.question import LeverQuestion
from stowage.performance.levers.shape import pipeline_instead
from stowage.performance.levers.work import prefill_halved
from stowage.performance.serving import Serving
from stowage.performance.step import StepBatch, step_time
from stowage.performance.traffic import Traffic
from tests.performance.lever_builders import EIGHT, MIXTURE, SEVENTY, gpu_named, question_of, serving_of


def rate_change(serving: Serving, traffic: Traffic) -> float:
    question = question_of(serving, traffic)
    lever = judged(question, pipeline_instead(question))
    assert lever.effect is not None, lever.reason
    return lever.effect.output_tokens_per_second.share


@settings(max_examples=30, deadline=None)
@given(st.integers(500, 3000), st.integers(100, 600), st.integers(1, 8))
def test_stages_instead_of_ranks_lose_a_tenth_to_a_half_on_nvlink_with_few_requests(
    prompt: int, answer: int, flying: int
) -> None:
    assert -0.5 <= rate_change(serving_of(SEVENTY, "H100", 8), Traffic(prompt, answer, flying)) <= -0.1


@settings(max_examples=20, deadline=None)
@given(st.integers(500, 3000), st.integers(100, 600), st.integers(1, 6))
def test_what_stages_lose_shrinks_as_concurrency_grows_and_without_nvlink(
    prompt: int, answer: int, flying: int
) -> None:
    serving = serving_of(SEVENTY, "H100", 8)
    few, many = (rate_change(serving, Traffic(prompt, answer, number)) for number in (flying, 16 * flying))
    assert few < many
    without_nvlink = rate_change(serving_of(SEVENTY, "L40S", 8), Traffic(prompt, answer, flying))
    assert without_nvlink > few


def test_without_nvlink_the_order_may_reverse() -> None:
    assert rate_change(serving_of(SEVENTY, "L40S", 8), Traffic(2000, 200, 64)) > 0


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([(EIGHT, "H100", 1), (SEVENTY, "H100", 4), (EIGHT, "L40S", 2), (MIXTURE, "H200", 1)]),
    st.integers(256, 8192),
)
def test_twice_the_prompt_is_four_times_the_attention_and_about_twice_the_rest(
    where: tuple[str, str, int], prompt: int
) -> None:
    serving = serving_of(*where)
    one = step_time(serving, StepBatch(prompt, prompt**2 / 2, 1))
    two = step_time(serving, StepBatch(2 * prompt, (2 * prompt) ** 2 / 2, 1))
    assert two.attention == pytest.approx(4 * one.attention, rel=0.15)
    assert two.total < 3 * one.total


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([(EIGHT, "H100", 1), (SEVENTY, "H100", 4)]),
    st.integers(1500, 3000),
    st.integers(32, 128),
)
def test_halving_prompts_brings_half_as_much_again_where_they_take_two_thirds(
    where: tuple[str, str, int], prompt: int, flying: int
) -> None:
    serving = serving_of(*where)
    answer = bisect_left(
        range(2, 2000),
        -2 / 3,
        key=lambda tokens: -question_of(serving, Traffic(prompt, tokens, flying)).base.prefill_share,
    )
    question = question_of(serving, Traffic(prompt, 2 + answer, flying))
    assert question.base.prefill_share == pytest.approx(2 / 3, abs=0.03)
    effect = judged(question, prefill_halved(question)).effect
    assert effect is not None
    assert 0.42 <= effect.output_tokens_per_second.share <= 0.58


def pinned(gpu: Gpu, *, keeps: bool = False) -> LeverQuestion:
    """Give 70B on two H100, where the plan pins the few gigabytes that are left for the cache."""
    serving = serving_of(SEVENTY, "H100", 4)
    shape = replace(serving.shape, tensor_parallel_size=2, max_num_seqs=8, max_model_len=8192)
    few = replace(shape, kv_cache_memory_bytes=4 * 2**30, max_num_batched_tokens=2048)
    tokens = 4 * 2**30 // (131072 * 5 // 4)
    small = replace(serving, shape=few, kv_tokens=tokens)
    return question_of(small, Traffic(1000, 200, 4), others=(gpu,), keeps_kv_bytes=keeps)


def test_a_cache_that_the_plan_pinned_grows_with_the_room_that_a_lever_makes() -> None:
    found = {lever.name: lever for lever in levers(pinned(gpu_named("H200")))}
    assert found["TP ×2"].effect is not None
    question = pinned(gpu_named("H200"))
    wider = question.refit(shape=replace(question.serving.shape, tensor_parallel_size=4))
    assert isinstance(wider, Serving)
    assert wider.kv_tokens > 8 * question.serving.kv_tokens
    kept = pinned(gpu_named("H200"), keeps=True)
    same = kept.refit(shape=replace(kept.serving.shape, tensor_parallel_size=4))
    assert isinstance(same, Serving)
    assert same.kv_tokens == pytest.approx(2 * question.serving.kv_tokens, rel=0.01)


def test_a_gpu_that_holds_the_model_only_in_numbers_is_not_refused_for_the_cache_of_the_plan() -> None:
    question = pinned(gpu_named("L4"))
    found = {lever.name: lever for lever in levers(question)}
    lever = found["8x NVIDIA-L4"]
    assert lever.verdict is not LeverVerdict.IMPOSSIBLE


def test_a_gpu_that_never_holds_the_model_is_refused_for_the_largest_shape_that_was_tried() -> None:
    lever = next(lever for lever in levers(pinned(gpu_named("T4"))) if lever.is_other_gpu)
    assert lever.name == "up to 8x Tesla-T4"
    assert "tp8" in lever.reason or "Tesla-T4" in lever.reason
    assert "tp1:" not in lever.reason
