"""The stepped scheduler and the closed form: queues, chunks, bursts, limits, and that both agree."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stowage.performance.capacity import floor
from stowage.performance.lengths import GOLDEN, spread_lengths
from stowage.performance.simulated import quantile, simulated
from stowage.performance.simulation import simulate
from stowage.performance.steady import steady
from stowage.performance.traffic import Traffic
from tests.performance.replicas import EIGHT, MIXTURE, SEVENTY, forecast_of, replica

TPOT_TOLERANCE = 0.15
RATE_TPOT_TOLERANCE = 0.2
RATE_ROUNDING = 0.02  # of token counts, to recall more steps
RATE_MARGIN = 1.07  # that bounds of the search are widened by
TTFT_TOLERANCE = 0.55
SHARE_TOLERANCE = 0.05


@settings(max_examples=25, deadline=None)
@given(
    st.integers(min_value=64, max_value=6000),
    st.integers(min_value=16, max_value=600),
    st.integers(min_value=1, max_value=96),
    st.sampled_from([EIGHT, MIXTURE]),
)
def test_every_request_ends_and_no_token_is_lost(prompt: int, output: int, clients: int, folder: str) -> None:
    traffic = Traffic(prompt, output, concurrency=clients, num_requests=2 * clients)
    run = simulate(replica(folder), traffic)
    weight = max(1.0, clients / 48)
    assert len(run.ttft) == pytest.approx(2 * clients / weight, abs=1)
    assert len(run.tpot) == len(run.ttft)
    assert run.output_tokens == pytest.approx(2 * clients * output, rel=0.12)
    assert 0 <= run.prompt_seconds <= run.busy <= run.seconds * (1 + 1e-9)
    assert min(run.ttft) > 0
    assert min(run.tpot) > 0


@settings(max_examples=25, deadline=None)
@given(
    st.integers(min_value=64, max_value=6000),
    st.integers(min_value=100, max_value=800),
    st.sampled_from([1, 4, 16, 48]),
    st.sampled_from([EIGHT, MIXTURE]),
)
def test_the_closed_form_agrees_with_the_stepped_scheduler(
    prompt: int, output: int, clients: int, folder: str
) -> None:
    traffic, serving = Traffic(prompt, output, concurrency=clients), replica(folder)
    stepped, closed = simulated(serving, traffic), steady(serving, traffic)
    assert closed.tpot == pytest.approx(stepped.tpot, rel=TPOT_TOLERANCE)
    assert closed.ttft == pytest.approx(stepped.ttft, rel=TTFT_TOLERANCE)
    assert closed.prefill_share == pytest.approx(stepped.prefill_share, abs=SHARE_TOLERANCE)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([(200, 20), (300, 200), (500, 800), (2000, 100), (4000, 300)]),
    st.sampled_from([0.001, 0.01, 0.05, 0.2, 0.4, 0.6]),
    st.sampled_from([EIGHT, MIXTURE]),
)
def test_the_closed_form_agrees_with_the_stepped_scheduler_at_a_rate(
    lengths: tuple[int, int], load: float, folder: str
) -> None:
    serving, closed_loop = replica(folder), Traffic(*lengths, concurrency=10**6)
    rate = load * steady(serving, closed_loop).request_rate
    traffic = Traffic(*lengths, requests_per_second=rate)
    stepped, closed = simulated(serving, traffic), steady(serving, traffic)
    assert closed.tpot == pytest.approx(stepped.tpot, rel=RATE_TPOT_TOLERANCE)
    assert closed.ttft == pytest.approx(stepped.ttft, rel=TTFT_TOLERANCE)


@pytest.mark.parametrize("folder", [EIGHT, MIXTURE])
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_request_that_is_alone_decodes_as_slowly_at_a_rate_as_with_one_client(
    folder: str, ranks: int
) -> None:
    serving = replica(folder, data_parallel_size=ranks)
    alone = steady(serving, Traffic(200, 20, concurrency=1))
    seldom = steady(serving, Traffic(200, 20, requests_per_second=1e-4))
    assert seldom.tpot == pytest.approx(alone.tpot, rel=0.01)
    assert seldom.tpot >= floor(serving, Traffic(200, 20, concurrency=1)).tpot_seconds


@settings(max_examples=15, deadline=None)
@given(st.sampled_from([1, 2, 4, 8, 16, 32]), st.integers(min_value=100, max_value=4000))
def test_more_clients_wait_longer_and_get_more_together(clients: int, prompt: int) -> None:
    serving = replica(EIGHT)
    few, many = (
        forecast_of(serving, Traffic(prompt, 200, concurrency=number)) for number in (clients, 2 * clients)
    )
    assert many.tpot_seconds.central >= few.tpot_seconds.central * 0.99
    assert many.output_tokens_per_second.central >= few.output_tokens_per_second.central * 0.99


def test_the_first_wave_waits_for_its_own_prompts() -> None:
    serving = replica(SEVENTY, tensor_parallel_size=4)
    run = simulate(serving, Traffic(4000, 100, concurrency=32, num_requests=32))
    alone = simulate(serving, Traffic(4000, 100, concurrency=1, num_requests=1))
    steps = 32 * 4000 / serving.shape.max_num_batched_tokens
    assert max(run.ttft) > 0.7 * steps * 2 * min(alone.ttft)
    assert sorted(run.ttft)[16] == pytest.approx(max(run.ttft) / 2, rel=0.25)


def test_a_larger_token_budget_shortens_the_wait_of_a_burst_of_short_prompts() -> None:
    traffic = Traffic(500, 100, concurrency=64, num_requests=64)
    small, large = (
        simulate(replica(MIXTURE, max_num_batched_tokens=budget), traffic) for budget in (512, 8192)
    )
    assert sum(large.ttft) < 0.7 * sum(small.ttft)


def test_requests_beyond_max_num_seqs_queue() -> None:
    limited = forecast_of(replica(EIGHT, max_num_seqs=8), Traffic(500, 200, concurrency=64))
    free = forecast_of(replica(EIGHT), Traffic(500, 200, concurrency=64))
    assert limited.batch_limit == "max_num_seqs"
    assert limited.decode_batch <= 8
    assert limited.ttft_seconds.central > 5 * free.ttft_seconds.central
    assert limited.tpot_seconds.central < free.tpot_seconds.central


def test_a_small_cache_limits_the_batch_and_says_so() -> None:
    traffic = Traffic(1000, 500, concurrency=64)
    tight = forecast_of(replica(EIGHT, kv_tokens=12_000), traffic)
    free = forecast_of(replica(EIGHT), traffic)
    assert tight.batch_limit == "kv_tokens"
    assert tight.decode_batch < 12
    assert tight.output_tokens_per_second.central < 0.6 * free.output_tokens_per_second.central
    assert tight.decode.shares["KvCapacity"] > 0.3  # type: ignore[index]


def test_thirty_times_the_cache_brings_nothing_where_max_num_seqs_binds() -> None:
    traffic = Traffic(2000, 200, concurrency=256)
    base = forecast_of(replica(EIGHT, kv_tokens=400_000, max_num_seqs=64), traffic)
    more = forecast_of(replica(EIGHT, kv_tokens=12_000_000, max_num_seqs=64), traffic)
    gain = more.output_tokens_per_second.central / base.output_tokens_per_second.central
    assert abs(gain - 1) < 0.03


def test_an_arrival_rate_below_capacity_is_served_and_above_it_queues() -> None:
    serving = replica(EIGHT)
    calm = forecast_of(serving, Traffic(1000, 100, requests_per_second=2.0, num_requests=200))
    over = forecast_of(serving, Traffic(1000, 100, requests_per_second=200.0, num_requests=1000))
    assert calm.requests_per_second.central == pytest.approx(2.0, rel=0.15)
    assert over.requests_per_second.central < 100
    assert over.ttft_seconds.central > 10 * calm.ttft_seconds.central


def test_prefix_hits_shorten_prompts_and_leave_contexts() -> None:
    base, hit = (
        simulated(replica(EIGHT), Traffic(4000, 200, concurrency=16, prefix_hit_rate=rate))
        for rate in (0.0, 0.9)
    )
    assert hit.ttft < 0.5 * base.ttft
    assert hit.prefill_share < 0.3 * base.prefill_share
    assert hit.decode.kv_read == pytest.approx(base.decode.kv_read, rel=0.1)


def test_data_parallel_ranks_share_the_clients() -> None:
    traffic = Traffic(1000, 200, concurrency=32)
    two = forecast_of(replica(EIGHT, data_parallel_size=2), traffic)
    half = forecast_of(replica(EIGHT), replace(traffic, concurrency=16))
    assert two.decode_batch == pytest.approx(half.decode_batch, rel=0.02)
    assert two.output_tokens_per_second.central == pytest.approx(
        2 * half.output_tokens_per_second.central, rel=0.02
    )


def test_answers_repeat() -> None:
    traffic = Traffic(1234, 321, concurrency=17, prompt_tokens_p95=4000)
    assert simulate(replica(EIGHT), traffic) == simulate(replica(EIGHT), traffic)


@pytest.mark.parametrize(
    ("mean", "p95"),
    [
        pytest.param(1000, 1100, id="a narrow spread"),
        pytest.param(1000, 1700, id="an even one"),
        pytest.param(1000, 3000, id="a long tail"),
        pytest.param(10, None, id="none"),
    ],
)
def test_lengths_keep_mean_and_percentile(mean: int, p95: int | None) -> None:
    lengths = spread_lengths(mean, p95, 500, GOLDEN)
    assert sum(lengths) / 500 == pytest.approx(mean, rel=0.02)
    assert min(lengths) >= 1
    if p95 is not None:
        assert quantile([float(length) for length in lengths], 0.95) == pytest.approx(p95, rel=0.1)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"prompt_tokens": 0}, id="no prompt"),
        pytest.param({"concurrency": None}, id="neither concurrency nor rate"),
        pytest.param({"requests_per_second": 1.0}, id="both of them"),
        pytest.param({"concurrency": 0}, id="no clients"),
        pytest.param({"concurrency": None, "requests_per_second": 0.0}, id="no rate"),
        pytest.param({"prefix_hit_rate": 1.0}, id="prompts that are all cached"),
        pytest.param({"percentile": 100}, id="a percentile nobody is beyond"),
    ],
)
def test_traffic_that_means_nothing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Traffic(**{"prompt_tokens": 10, "output_tokens": 10, "concurrency": 1, **wrong})  # type: ignore[arg-type]


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from([500, 1000, 2000, 4000]),
    st.sampled_from([20, 50, 100, 200]),
    st.sampled_from([64, 256, 512]),
    st.sampled_from([2048, 8192]),
)
def test_both_agree_on_the_most_that_a_replica_does(
    prompt: int, output: int, clients: int, budget: int
) -> None:
    serving = replica(EIGHT, max_num_batched_tokens=budget, max_num_seqs=512, kv_tokens=400_000)
    traffic = Traffic(prompt, output, concurrency=clients, num_requests=4 * clients)
    stepped, closed = simulated(serving, traffic), steady(serving, traffic)
    assert closed.request_rate == pytest.approx(stepped.request_rate, rel=TPOT_TOLERANCE)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(min_value=64, max_value=6000),
    st.integers(min_value=2, max_value=600),
    st.floats(min_value=0.001, max_value=1.5),
    st.sampled_from([EIGHT, MIXTURE]),
)
def test_a_rate_is_served_by_as_many_as_come_while_one_is(
    prompt: int, output: int, share: float, folder: str
) -> None:
    serving = replica(folder)
    most = steady(serving, Traffic(prompt, output, concurrency=10**6)).request_rate
    found = steady(serving, Traffic(prompt, output, requests_per_second=share * most))
    assert found.request_rate == pytest.approx(min(share, 1.0) * most, rel=RATE_ROUNDING)
    assert found.batch_limit == ("rate" if share <= 1 else "max_num_seqs") or abs(share - 1) < 0.01
    service = found.tpot * (output - 1)
    assert found.decode_batch <= share * most * service * 1.2 + 1


@settings(max_examples=30, deadline=None)
@given(st.integers(min_value=64, max_value=6000), st.integers(min_value=2, max_value=400))
def test_a_larger_budget_and_more_room_never_serve_less(prompt: int, output: int) -> None:
    rates = [
        steady(
            replica(EIGHT, max_num_batched_tokens=budget, max_num_seqs=1024, kv_tokens=room),
            Traffic(prompt, output, concurrency=10**6),
        ).request_rate
        for budget, room in ((2048, 50_000), (8192, 50_000), (8192, 200_000), (16384, 800_000))
    ]
    few = output**2 / (output**2 - output + 1)
    assert all(after >= before / RATE_MARGIN / few for before, after in pairwise(rates))
