"""What must hold for any workload: identities between levers and shares, and what papers claim about shapes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stowage.api.reasons import Reason
from stowage.api.refusal import Refusal
from stowage.performance.boundness import Bound
from stowage.performance.capacity import floor, max_rate
from stowage.performance.efficiencies import Efficiencies, efficiencies
from stowage.performance.interval import Interval
from stowage.performance.roofline import Roofline
from stowage.performance.serving import Serving
from stowage.performance.steady import steady
from stowage.performance.step import StepBatch, step_time
from stowage.performance.traffic import Traffic
from tests.performance.replicas import EIGHT, MIXTURE, SEVENTY, forecast_of, replica


@settings(max_examples=20, deadline=None)
@given(
    st.integers(min_value=100, max_value=6000),
    st.integers(min_value=50, max_value=600),
    st.integers(min_value=1, max_value=128),
    st.sampled_from([EIGHT, MIXTURE]),
    st.booleans(),
)
def test_shares_are_shares(prompt: int, output: int, clients: int, folder: str, fast: bool) -> None:
    found = forecast_of(replica(folder), Traffic(prompt, output, concurrency=clients), fast)
    assert 0 <= found.prefill_share <= 1
    for phase in (found.prefill, found.decode):
        assert sum(phase.shares.values()) == pytest.approx(1)
        assert min(phase.shares.values()) >= 0
        assert phase.shares[phase.bound] == max(phase.shares.values())
    for interval in (found.ttft_seconds, found.tpot_seconds, found.output_tokens_per_second):
        assert 0 < interval.low < interval.central < interval.high
    assert found.ttft_p95_seconds >= found.ttft_seconds.central * 0.5
    assert found.method == ("closed form" if fast else "simulated")


@pytest.mark.parametrize(
    ("folder", "ranks"), [pytest.param(EIGHT, 1, id="8B"), pytest.param(SEVENTY, 4, id="70B")]
)
def test_prompts_take_a_third_to_three_quarters_of_2000_200_on_h100(folder: str, ranks: int) -> None:
    serving = replica(folder, tensor_parallel_size=ranks)
    found = forecast_of(serving, Traffic(2000, 200, concurrency=48))
    assert 0.35 <= found.prefill_share <= 0.75


@settings(max_examples=20, deadline=None)
@given(
    st.integers(min_value=1000, max_value=6000),
    st.integers(min_value=100, max_value=400),
    st.sampled_from([16, 32, 48]),
    st.sampled_from([EIGHT, MIXTURE]),
)
def test_halving_prompt_time_brings_one_over_one_minus_half_its_share(
    prompt: int, output: int, clients: int, folder: str
) -> None:
    serving, traffic = replica(folder), Traffic(prompt, output, concurrency=clients)
    base = steady(serving, traffic)
    gained = steady(serving, _with_half_of_the_prompt_time(serving, traffic, base.decode_batch))
    expected = 1 / (1 - base.prefill_share / 2)
    assert gained.output_rate / base.output_rate == pytest.approx(expected, rel=0.06)


def _with_half_of_the_prompt_time(serving: Serving, traffic: Traffic, decoding: float) -> Traffic:
    """Let a prefix cache hit so often that prompts add half as much to the steps they are in."""

    def added(rate: float) -> float:
        asked = replace(traffic, prefix_hit_rate=rate)
        tokens = asked.computed_prompt_tokens
        plain = StepBatch(decode_sequences=decoding, decode_context=decoding * traffic.mean_context_tokens)
        pairs = tokens * (traffic.prompt_tokens - tokens / 2)
        mixed = replace(plain, prefill_tokens=tokens, prefill_pairs=pairs, prefill_sequences=1)
        return step_time(serving, mixed).total - step_time(serving, plain).total

    low, high, wanted = 0.0, 0.999, added(0.0) / 2
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if added(middle) < wanted else (middle, high)
    return replace(traffic, prefix_hit_rate=low)


@pytest.mark.parametrize("clients", [1, 2, 4, 8])
def test_stages_lose_against_ranks_on_nvlink_for_few_requests(clients: int) -> None:
    assert 0.10 <= _loss(clients, "H100") <= 0.50


def test_the_loss_of_stages_shrinks_as_requests_grow() -> None:
    losses = [_loss(clients, "H100") for clients in (1, 8, 64, 256)]
    assert losses == sorted(losses, reverse=True)


def test_without_nvlink_stages_lose_less_and_win_for_many_requests() -> None:
    assert _loss(8, "H100-PCIe") < _loss(8, "H100")
    assert _loss(128, "H100-PCIe") < 0


def _loss(clients: int, gpu: str) -> float:
    """Give the share of throughput that TP4×PP2 loses against TP8, by the closed form."""
    traffic = Traffic(1000, 500, concurrency=clients)
    ranks = replica(SEVENTY, gpu, tensor_parallel_size=8)
    stages = replica(SEVENTY, gpu, tensor_parallel_size=4, pipeline_parallel_size=2)
    return 1 - steady(stages, traffic).output_rate / steady(ranks, traffic).output_rate


def test_small_batches_are_bound_by_bandwidth_and_prompts_by_compute() -> None:
    found = forecast_of(replica(EIGHT), Traffic(4000, 200, concurrency=2))
    assert found.decode.bound is Bound.MEMORY_BANDWIDTH
    assert found.prefill.bound is Bound.COMPUTE
    assert found.decode.intensity_flops_per_byte < 10 < found.decode.ridge_flops_per_byte
    assert found.prefill.intensity_flops_per_byte > found.prefill.ridge_flops_per_byte
    assert found.decode.ridge_flops_per_byte == pytest.approx(989e12 / 3.35e12, rel=0.02)
    assert "memory bandwidth" in found.bottleneck.sentence


def test_small_models_are_bound_by_overhead() -> None:
    found = forecast_of(replica("Qwen--Qwen3-0.6B"), Traffic(100, 200, concurrency=1))
    assert found.decode.bound is Bound.OVERHEAD


def test_ranks_over_pcie_are_bound_by_the_link() -> None:
    serving = replica(SEVENTY, "L40S", tensor_parallel_size=8)
    assert forecast_of(serving, Traffic(4000, 200, concurrency=32)).prefill.bound is Bound.INTERCONNECT


def test_the_highest_rate_meets_its_objectives_and_hardly_more_would() -> None:
    serving, traffic = replica(EIGHT), Traffic(1000, 200, concurrency=1)
    rate = max_rate(serving, traffic, ttft_seconds=1.0, tpot_seconds=0.02)
    assert isinstance(rate, float)
    for factor, meets in ((0.98, True), (1.05, False)):
        found = steady(serving, replace(traffic, concurrency=None, requests_per_second=rate * factor))
        assert (found.tpot_percentile <= 0.02 and found.ttft_percentile <= 1.0) is meets


def test_looser_objectives_never_lower_the_rate() -> None:
    serving, traffic = replica(EIGHT), Traffic(1000, 200, concurrency=1)
    rates = [max_rate(serving, traffic, tpot_seconds=tpot) for tpot in (0.01, 0.02, 0.05)]
    assert all(isinstance(rate, float) for rate in rates)
    assert rates == sorted(rates)  # type: ignore[type-var]


def test_objectives_below_physics_are_refused_with_the_floor() -> None:
    serving, traffic = replica(SEVENTY, tensor_parallel_size=4), Traffic(4000, 200, concurrency=1)
    least = floor(serving, traffic)
    found = max_rate(serving, traffic, ttft_seconds=least.ttft_seconds / 2)
    assert isinstance(found, Refusal)
    assert f"{least.ttft_seconds * 1000:.1f} ms" in found.hint
    step = step_time(serving, StepBatch(decode_sequences=1, decode_context=4100))
    assert 0.4 * step.total < least.tpot_seconds < step.total


def test_a_request_that_does_not_fit_the_cache_is_refused() -> None:
    found = Roofline().forecast(replica(EIGHT, kv_tokens=1000), Traffic(2000, 100, concurrency=1))
    assert isinstance(found, Refusal)
    assert found.reason is Reason.CONTEXT_TOO_LONG
    assert "2100" in found.message


@pytest.mark.parametrize(
    ("folder", "gpu", "shape", "named"),
    [
        pytest.param(EIGHT, "H100", {}, (), id="what was measured"),
        pytest.param(EIGHT, "A100", {}, ("this GPU family",), id="another family"),
        pytest.param(
            SEVENTY, "H100-PCIe", {"tensor_parallel_size": 4}, ("PCIe between GPUs",), id="ranks over PCIe"
        ),
        pytest.param(
            SEVENTY,
            "H100",
            {"tensor_parallel_size": 4, "pipeline_parallel_size": 2},
            ("pipeline parallelism",),
            id="stages",
        ),
    ],
)
def test_what_nobody_measured_is_named_and_widens_the_band(
    folder: str, gpu: str, shape: dict[str, int], named: tuple[str, ...]
) -> None:
    found = forecast_of(replica(folder, gpu, **shape), Traffic(500, 100, concurrency=4), fast=True)
    assert found.unmeasured == named
    wide = found.tpot_seconds.high / found.tpot_seconds.central
    assert wide == pytest.approx(2.0 if named else 1.3)


def test_at_most_eight_numbers_are_fitted_and_each_has_a_source() -> None:
    import tomllib
    from importlib.resources import files

    table = tomllib.loads(
        files("stowage.performance").joinpath("efficiencies.toml").read_text(encoding="utf-8")
    )
    rows = {name: row for name, row in table.items() if name != "sources"}
    assert set(rows) == set(Efficiencies.__dataclass_fields__)
    assert sum(row["fitted"] for row in rows.values()) <= 8
    for row in rows.values():
        assert row["unit"]
        assert row["source"] in table["sources"] or row["source"].startswith("assumed: ")
    assert 0 < efficiencies().bandwidth < 1


def test_intervals_keep_their_order() -> None:
    band = Interval.around(10.0, 0.25)
    assert (band.low, band.high) == (8.0, 12.5)
    inverse = band.map(lambda value: 1 / value)
    assert inverse.low < inverse.central < inverse.high
