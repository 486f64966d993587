"""Levers: identities that must hold whatever the numbers of the step model are, over generated workloads."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stowage.model.profile import ModelProfile
from stowage.model.tensors import Scheme
from stowage.performance.boundness import Bound
from stowage.performance.levers import judged, levers
from stowage.performance.levers.effect import (
    MATTERS,
    Change,
    Effect,
    Lever,
    LeverVerdict,
    percent,
    verdict_of,
)
from stowage.performance.levers.kv import capacity
from stowage.performance.levers.precision import W8A8_INT8, WEIGHT_ONLY_4, WEIGHT_ONLY_8, quantized
from stowage.performance.levers.question import LeverQuestion
from stowage.performance.levers.shape import pipeline_instead
from stowage.performance.levers.work import prefill_halved
from stowage.performance.step import StepBatch, step_time
from stowage.performance.traffic import Traffic
from tests.model.support import published
from tests.performance.lever_builders import EIGHT, MIXTURE, SEVENTY, gpu_named, question_of, serving_of

SHAPES = st.sampled_from([(EIGHT, "H100", 1), (EIGHT, "L40S", 2), (SEVENTY, "H100", 4), (MIXTURE, "H200", 1)])
PROMPTS = st.integers(200, 6000)
ANSWERS = st.integers(32, 800)


def by_name(question: LeverQuestion) -> dict[str, Lever]:
    return {lever.name: lever for lever in levers(question)}


def effect_of(lever: Lever) -> Effect:
    assert lever.effect is not None, lever.reason
    return lever.effect


@settings(max_examples=40, deadline=None)
@given(SHAPES, PROMPTS, ANSWERS, st.integers(4, 24))
def test_thirty_times_the_kv_brings_nothing_to_a_batch_that_max_num_seqs_bounds(
    where: tuple[str, str, int], prompt: int, answer: int, seqs: int
) -> None:
    question = question_of(serving_of(*where, seqs=seqs), Traffic(prompt, answer, 4 * seqs))
    if question.base.batch_limit != "max_num_seqs":
        return
    lever = judged(question, capacity(question, 30))
    assert abs(effect_of(lever).output_tokens_per_second.share) < MATTERS
    assert lever.verdict is LeverVerdict.USELESS
    assert lever.reason.startswith(f"the batch is bound by max_num_seqs {seqs}, not by KV")


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.integers(500, 6000), st.integers(100, 800), st.integers(8, 96))
def test_halving_prompts_brings_what_their_share_of_the_time_says(
    where: tuple[str, str, int], prompt: int, answer: int, flying: int
) -> None:
    question = question_of(serving_of(*where), Traffic(prompt, answer, flying))
    share = question.base.prefill_share
    gained = effect_of(judged(question, prefill_halved(question))).output_tokens_per_second.share
    assert gained == pytest.approx(1 / (1 - share / 2) - 1, abs=0.06)


@pytest.mark.parametrize(
    ("folder", "ranks", "flying"),
    [
        pytest.param(EIGHT, 1, 64, id="8B on one H100"),
        pytest.param(SEVENTY, 4, 64, id="70B on four H100"),
    ],
)
def test_prompts_take_between_a_third_and_three_quarters_of_the_time_at_2000_in_200_out(
    folder: str, ranks: int, flying: int
) -> None:
    assert (
        0.35
        <= question_of(serving_of(folder, "H100", ranks), Traffic(2000, 200, flying)).base.prefill_share
        <= 0.75
    )


@pytest.mark.parametrize("folder", [EIGHT, SEVENTY])
def test_pipeline_stages_lose_on_nvlink_with_few_requests_and_less_with_more(folder: str) -> None:
    serving = serving_of(folder, "H100", 8)
    found = []
    for flying in (1, 2, 4, 8, 32):
        question = question_of(serving, Traffic(2000, 200, flying))
        found.append(effect_of(judged(question, pipeline_instead(question))).output_tokens_per_second.share)
    assert all(-0.5 <= share <= -0.1 for share in found[:4])
    assert found == sorted(found)


def test_pipeline_stages_lose_less_without_nvlink() -> None:
    def lost(gpu: str) -> float:
        question = question_of(serving_of(SEVENTY, gpu, 8), Traffic(2000, 200, 8))
        return effect_of(judged(question, pipeline_instead(question))).output_tokens_per_second.share

    assert lost("L40S") > lost("H100") + 0.1


@settings(max_examples=20, deadline=None)
@given(SHAPES, st.integers(64, 1500), st.integers(64, 800), st.integers(1, 2))
def test_alone_on_a_gpu_decoding_is_bound_by_memory_so_weights_help_and_kv_does_not(
    where: tuple[str, str, int], prompt: int, answer: int, flying: int
) -> None:
    question = question_of(serving_of(*where), Traffic(prompt, answer, flying), kv_factor=30)
    shares = question.base.decode.shares
    assert shares[Bound.MEMORY_BANDWIDTH] > shares[Bound.COMPUTE]
    found = by_name(question)
    fewer_bits = effect_of(found["weight-only 4 bit"])
    assert fewer_bits.tpot_seconds.share < -MATTERS
    for name in ("KV capacity ×30", "KV traffic ÷30"):
        kv = effect_of(found[name]).tpot_seconds.share
        assert abs(kv) < 0.1
        assert kv > fewer_bits.tpot_seconds.share


@settings(max_examples=20, deadline=None)
@given(SHAPES, st.integers(1000, 6000), ANSWERS, st.integers(1, 64))
def test_weights_that_are_only_stored_in_few_bits_bring_prompts_nothing(
    where: tuple[str, str, int], prompt: int, answer: int, flying: int
) -> None:
    question = question_of(serving_of(*where), Traffic(prompt, answer, flying))
    found = by_name(question)
    batch = StepBatch(prompt, prompt**2 / 2, 1)
    plain = step_time(question.serving, batch).total
    for scheme in (WEIGHT_ONLY_8, WEIGHT_ONLY_4):
        held = replace(question.serving, profile=quantized(question.serving.profile, scheme))
        assert step_time(held, batch).total > 0.97 * plain
    assert effect_of(found["W8A8 fp8"]).ttft_seconds.share < -MATTERS
    assert found["weight-only 4 bit"].lossy


@settings(max_examples=15, deadline=None)
@given(st.integers(500, 4000), ANSWERS, st.integers(1, 16))
def test_half_the_kv_bytes_are_the_same_as_the_engines_own_8_bit_cache_where_room_does_not_limit(
    prompt: int, answer: int, flying: int
) -> None:
    question = question_of(serving_of(EIGHT), Traffic(prompt, answer, flying), kv_factor=2)
    found = by_name(question)
    by_engine = effect_of(found["KV cache fp8"]).output_tokens_per_second.share
    in_general = effect_of(found["KV traffic ÷2"]).output_tokens_per_second.share
    assert in_general == pytest.approx(by_engine, abs=0.02)


def test_guessing_tokens_pays_less_the_more_requests_decode_together() -> None:
    gains = [
        effect_of(by_name(question_of(serving_of(EIGHT), Traffic(500, 500, flying)))["speculative decoding"])
        for flying in (1, 16, 128)
    ]
    shares = [effect.output_tokens_per_second.share for effect in gains]
    assert shares[0] > shares[-1]
    assert shares[0] > 0.3


@settings(max_examples=15, deadline=None)
@given(SHAPES, PROMPTS, ANSWERS, st.integers(3, 128))
def test_more_replicas_make_every_request_faster_and_cost_more_for_each_token(
    where: tuple[str, str, int], prompt: int, answer: int, flying: int
) -> None:
    question = question_of(serving_of(*where), Traffic(prompt, answer, flying))
    effect = effect_of(by_name(question)["replicas ×2"])
    assert effect.tpot_seconds.share <= 0.001
    assert effect.output_tokens_per_second.share >= -0.001
    assert effect.hourly_cost.share == 1.0
    assert effect.requests_at_once.share == 1.0


@pytest.mark.parametrize("folder", [EIGHT, SEVENTY])
@pytest.mark.parametrize("prompt", [512, 2048])
def test_twice_the_prompt_is_four_times_the_attention_and_not_four_times_the_prefill(
    folder: str, prompt: int
) -> None:
    serving = serving_of(folder, "H100", 4)
    one = step_time(serving, StepBatch(prompt, prompt**2 / 2, 1))
    two = step_time(serving, StepBatch(2 * prompt, (2 * prompt) ** 2 / 2, 1))
    assert two.attention == pytest.approx(4 * one.attention, rel=0.15)
    assert 1.2 < two.total / one.total < 3


@pytest.mark.parametrize(
    ("gpu", "name", "words"),
    [
        pytest.param(
            "B200", "W8A8 int8", "10.0 has no INT8 matrix kernels", id="no INT8 kernels on Blackwell"
        ),
        pytest.param("A100", "W8A8 fp8", "8.0 does not multiply in fp8", id="no fp8 units on Ampere"),
        pytest.param("A100", "W8A8 int8", None, id="INT8 on Ampere"),
        pytest.param("L40S", "W8A8 fp8", None, id="fp8 on Ada"),
        pytest.param("B200", "W8A8 fp8", None, id="fp8 on Blackwell"),
    ],
)
def test_eight_bits_are_computed_in_only_where_there_are_kernels(
    gpu: str, name: str, words: str | None
) -> None:
    lever = by_name(question_of(serving_of(EIGHT, gpu), Traffic(1000, 200, 16)))[name]
    assert (lever.effect is None) is (words is not None)
    assert words is None or words in lever.reason


def test_weights_that_are_quantised_already_are_not_quantised_again() -> None:
    lever = by_name(question_of(serving_of("unsloth--Qwen3-8B-FP8"), Traffic(1000, 200, 16)))[
        "weight-only 4 bit"
    ]
    assert lever.verdict is LeverVerdict.IMPOSSIBLE
    assert lever.sentence == "weight-only 4 bit: not here: the weights are quantised already, by fp8"


@pytest.mark.parametrize(
    ("scheme", "folder"),
    [
        pytest.param(WEIGHT_ONLY_8, "synthetic--llama-8b-ct-w8a16", id="8 bit, weights alone"),
        pytest.param(W8A8_INT8, "synthetic--llama-8b-ct-w8a8", id="W8A8 int8"),
    ],
)
def test_a_quantised_profile_is_laid_out_as_such_a_checkpoint(scheme: Scheme, folder: str) -> None:
    def layouts(profile: ModelProfile) -> dict[str, Scheme]:
        linears = ((tensor.name, tensor.linear) for tensor in profile.layers[0].tensors)
        return {
            name: linear.scheme
            for name, linear in linears
            if linear is not None and linear.scheme is not None
        }

    made = quantized(published(EIGHT), scheme)
    assert layouts(made) == layouts(published(folder))
    assert made.outer_tensors == published(EIGHT).outer_tensors


def test_eight_bit_caches_hold_nearly_twice_the_tokens_and_are_no_help_to_few_requests() -> None:
    question = question_of(serving_of(EIGHT, "H100", seqs=1024), Traffic(2000, 200, 1))
    for name in ("KV cache fp8", "KV cache int8_per_token_head"):
        lever = by_name(question)[name]
        assert 0.9 < effect_of(lever).requests_at_once.share < 1.1
        assert lever.verdict is LeverVerdict.USELESS
    assert "1 request is in flight" in by_name(question)["KV capacity ×4"].reason


def test_room_that_only_longer_batches_could_use_is_said_to_need_them() -> None:
    question = question_of(serving_of(EIGHT, "L4", seqs=8), Traffic(1500, 150, 64))
    assert question.base.batch_limit == "max_num_seqs"
    lever = by_name(question)["KV cache fp8"]
    assert lever.verdict is not LeverVerdict.IMPOSSIBLE
    found = re.search(r"not by KV; with max_num_seqs (\d+) as well: \+(\d+) %$", lever.reason)
    assert found is not None, lever.reason
    assert 8 < int(found[1]) <= 64
    assert int(found[2]) > 10
    enough = question_of(serving_of(EIGHT, "L4", seqs=8), Traffic(1500, 150, 8))
    assert "as well" not in by_name(enough)["KV cache fp8"].reason


def test_a_batch_that_kv_bounds_gains_by_room_and_the_reason_says_so() -> None:
    question = question_of(serving_of(EIGHT, "L4", seqs=256), Traffic(3000, 300, 200))
    assert question.base.batch_limit == "kv_tokens"
    lever = by_name(question)["KV capacity ×4"]
    assert effect_of(lever).output_tokens_per_second.share > MATTERS
    assert lever.reason == "the batch is bound by the room for KV"


@settings(max_examples=15, deadline=None)
@given(SHAPES, PROMPTS, ANSWERS, st.integers(1, 200))
def test_levers_are_sorted_and_all_there_and_the_same_twice(
    where: tuple[str, str, int], prompt: int, answer: int, flying: int
) -> None:
    others = (gpu_named("A100"), gpu_named("B200"))
    question = question_of(serving_of(*where), Traffic(prompt, answer, flying), others=others)
    found = levers(question)
    order = list(LeverVerdict)
    assert [order.index(lever.verdict) for lever in found] == sorted(
        order.index(each.verdict) for each in found
    )
    assert levers(question_of(serving_of(*where), Traffic(prompt, answer, flying), others=others)) == found
    names = {lever.name for lever in found}
    assert {"W8A8 fp8", "TP ×2", "replicas ×2", "speculative decoding", "prefill compute −50 %"} <= names
    assert any(name.endswith("NVIDIA-B200") for name in names)
    assert all(lever.reason and (lever.effect or lever.verdict is LeverVerdict.IMPOSSIBLE) for lever in found)


@pytest.mark.parametrize(
    ("folder", "gpu", "ranks"),
    [
        pytest.param("deepseek-ai--DeepSeek-R1", "B200", 8, id="latent attention and experts"),
        pytest.param("openai--gpt-oss-120b", "H100", 2, id="windows and four-bit experts"),
        pytest.param("google--gemma-3-27b-it", "A100", 2, id="windows and an encoder"),
        pytest.param("state-spaces--mamba-2.8b-hf", "L4", 1, id="states and no attention"),
        pytest.param("Qwen--Qwen3-Next-80B-A3B-Instruct", "H200", 4, id="states, attention and experts"),
        pytest.param("Qwen--Qwen2.5-Coder-32B-Instruct-AWQ", "L40S", 2, id="four-bit weights"),
    ],
)
def test_every_kind_of_model_has_levers(folder: str, gpu: str, ranks: int) -> None:
    found = levers(question_of(serving_of(folder, gpu, ranks), Traffic(500, 100, 16)))
    assert len(found) > 12
    assert any(lever.verdict is LeverVerdict.HELPS for lever in found)
    assert any(lever.verdict in (LeverVerdict.USELESS, LeverVerdict.HARMS) for lever in found)


def test_a_rate_is_judged_at_what_it_keeps_in_flight() -> None:
    question = question_of(serving_of(EIGHT), Traffic(1000, 200, requests_per_second=2.0))
    assert question.load.requests_per_second is None
    assert (question.load.concurrency or 0) >= 1
    assert effect_of(by_name(question)["W8A8 fp8"]).output_tokens_per_second.share > 0


def test_costs_follow_the_prices_of_both_gpus() -> None:
    prices = {"NVIDIA-H100-80GB-HBM3": 2.0, "NVIDIA-B200": 6.0}
    question = question_of(
        serving_of(EIGHT),
        Traffic(1000, 200, 16),
        others=(gpu_named("B200"),),
        hourly=lambda gpu: prices[gpu.name],
    )
    effect = effect_of(by_name(question)["1x NVIDIA-B200"])
    assert effect.hourly_cost == Change(2.0, 6.0)
    rate = effect.output_tokens_per_second
    assert effect.cost_per_million_tokens.share == pytest.approx(3 * rate.before / rate.after - 1)


@pytest.mark.parametrize(
    ("rate", "tpot", "cost", "verdict"),
    [
        pytest.param(1.2, 0.8, 0.9, LeverVerdict.HELPS, id="all better"),
        pytest.param(1.2, 0.8, 1.5, LeverVerdict.TRADES, id="faster and dearer"),
        pytest.param(1.02, 0.98, 0.99, LeverVerdict.USELESS, id="nothing that matters"),
        pytest.param(0.9, 1.1, 1.1, LeverVerdict.HARMS, id="all worse"),
    ],
)
def test_the_verdict_is_about_what_moves(
    rate: float, tpot: float, cost: float, verdict: LeverVerdict
) -> None:
    same = Change(1.0, 1.0)
    effect = Effect(Change(1.0, rate), same, Change(1.0, tpot), same, same, Change(1.0, cost))
    assert verdict_of(effect) is verdict


@pytest.mark.parametrize(
    ("share", "words"), [(0.338, "+34 %"), (-0.05, "−5 %"), (0.004, "±0 %"), (-0.004, "±0 %")]
)
def test_changes_are_written_as_people_do(share: float, words: str) -> None:
    assert percent(share) == words
