"""From the engine's metrics to facts and utilisation."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from stowage_runtime.contract import EngineFacts
from stowage_runtime.engine_facts import with_metrics
from stowage_runtime.prometheus_text import parse_exposition
from stowage_runtime.utilization import UtilizationWindow

TWO_ENGINES = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0
vllm:num_requests_waiting{engine="0",model_name="m"} 1.0
vllm:num_requests_waiting{engine="1",model_name="m"} 4.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.5
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.25
vllm:num_preemptions_total{engine="0",model_name="m"} 7.0
vllm:prompt_tokens_total{engine="0",model_name="m"} 1000.0
vllm:prompt_tokens_total{engine="1",model_name="m"} 500.0
vllm:generation_tokens_total{engine="0",model_name="m"} 1.2e+06
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 9.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="m"} 1.0
"""
TWO_ENGINES += "".join(
    f'vllm:cache_config_info{{block_size="16",cache_dtype="auto",engine="{engine}",kv_cache_max_concurrency="{most}",'
    f'kv_cache_size_tokens="{tokens}",num_gpu_blocks="{blocks}",num_gpu_blocks_override="None"}} 1.0\n'
    for engine, most, tokens, blocks in ((0, 1.5, 1000, 63), (1, 1.25, 900, 57))
)


def counters(prompt: float, generated: float, ttft: tuple[float, float] = (0, 0)) -> str:
    return (
        f"vllm:num_requests_running 1\nvllm:kv_cache_usage_perc 0.5\n"
        f"vllm:prompt_tokens_total {prompt}\nvllm:generation_tokens_total {generated}\n"
        f"vllm:time_to_first_token_seconds_sum {ttft[0]}\nvllm:time_to_first_token_seconds_count {ttft[1]}\n"
    )


def test_engines_add_up() -> None:
    found = UtilizationWindow().add(parse_exposition(TWO_ENGINES), 0.0)
    assert found is not None
    assert (found.running, found.waiting, found.preemptions_total) == (5, 5, 7)
    assert (found.prompt_tokens_total, found.generation_tokens_total) == (1500, 1_200_000)
    assert found.request_success_total == 10
    assert found.kv_usage == 0.375
    assert found.prompt_tokens_per_second is None
    assert found.ttft_seconds_mean is None


def test_the_labels_of_the_cache_become_facts() -> None:
    facts = with_metrics(EngineFacts(kv_cache_tokens=1, weights_bytes=5), parse_exposition(TWO_ENGINES))
    assert facts.num_gpu_blocks == 120
    assert facts.block_size == 16
    assert facts.kv_cache_tokens == 1900
    assert facts.max_concurrency == 2.75
    assert facts.weights_bytes == 5


def test_older_versions_give_tokens_by_blocks() -> None:
    text = 'vllm:cache_config_info{block_size="16",num_gpu_blocks="100"} 1.0\n'
    assert with_metrics(EngineFacts(), parse_exposition(text)).kv_cache_tokens == 1600


def test_pinned_kv_bytes_come_from_the_configuration() -> None:
    text = 'vllm:cache_config_info{kv_cache_memory_bytes="1073741824",num_gpu_blocks="None"} 1.0\n'
    facts = with_metrics(EngineFacts(), parse_exposition(text))
    assert facts.kv_cache_bytes == 2**30
    assert facts.num_gpu_blocks is None


def test_what_the_log_measured_is_not_replaced_by_a_configuration() -> None:
    text = 'vllm:cache_config_info{kv_cache_memory_bytes="1073741824"} 1.0\n'
    assert with_metrics(EngineFacts(kv_cache_bytes=5), parse_exposition(text)).kv_cache_bytes == 5


def test_rates_and_means_are_over_the_window() -> None:
    window = UtilizationWindow(window_seconds=60)
    window.add(parse_exposition(counters(0, 0)), 0.0)
    window.add(parse_exposition(counters(1000, 100, (1.0, 4))), 50.0)
    found = window.add(parse_exposition(counters(4000, 700, (5.0, 6))), 110.0)
    assert found is not None
    assert found.window_seconds == 60.0
    assert found.prompt_tokens_per_second == 50.0
    assert found.generation_tokens_per_second == 10.0
    assert found.ttft_seconds_mean == 2.0


def test_a_counter_that_starts_again_is_no_negative_rate() -> None:
    window = UtilizationWindow()
    window.add(parse_exposition(counters(1000, 0)), 0.0)
    window.add(parse_exposition(counters(1100, 0)), 5.0)
    found = window.add(parse_exposition(counters(50, 0)), 10.0)
    assert found is not None
    assert found.prompt_tokens_per_second == 15.0


def test_older_metric_names_are_known() -> None:
    text = "vllm:num_requests_running 1\nvllm:gpu_cache_usage_perc 0.75\n"
    text += "vllm:time_per_output_token_seconds_sum {}\nvllm:time_per_output_token_seconds_count {}\n"
    window = UtilizationWindow()
    window.add(parse_exposition(text.format(0, 0)), 0.0)
    found = window.add(parse_exposition(text.format(3, 60)), 5.0)
    assert found is not None
    assert found.kv_usage == 0.75
    assert found.tpot_seconds_mean == 0.05


def test_what_is_no_engine_gives_nothing() -> None:
    assert UtilizationWindow().add(parse_exposition("python_info 1\n"), 0.0) is None


@pytest.mark.parametrize(
    ("line", "value"),
    [
        pytest.param('x{a="b"} 1.5', 1.5, id="a label"),
        pytest.param("x 1e3 1700000000", 1000.0, id="a timestamp"),
        pytest.param('x{a="with } and \\" and , in it"} 2', 2.0, id="a label with everything"),
        pytest.param(
            'x_bucket{le="0.1"} 3 # {trace_id="abc"} 0.05', None, id="an exemplar belongs to another name"
        ),
        pytest.param('x{a="b"} word', None, id="no number"),
        pytest.param("# x 5", None, id="a comment"),
    ],
)
def test_lines_are_read_or_skipped(line: str, value: float | None) -> None:
    assert parse_exposition(line + "\n").total("x") == value


def test_not_a_number_is_no_figure() -> None:
    assert parse_exposition("x NaN\n").total("x") is None
    assert math.isinf(parse_exposition("x +Inf\n").samples("x")[0].value)


@given(st.text(max_size=300))
def test_any_text_can_be_read(text: str) -> None:
    parse_exposition(text).samples("x")


@given(st.dictionaries(st.sampled_from(["a", "b"]), st.text(max_size=20), min_size=2), st.floats(0, 1e12))
def test_what_the_reference_client_writes_is_read_back(labels: dict[str, str], value: float) -> None:
    registry = CollectorRegistry()
    Gauge("vllm:g", "g", ["a", "b"], registry=registry).labels(**labels).set(value)
    Counter("vllm:c", "c", ["a", "b"], registry=registry).labels(**labels).inc(value)
    text = generate_latest(registry).decode()
    exposition = parse_exposition(text.replace("\r", "\\r") if "\r" in text else text)
    (sample,) = exposition.samples("vllm:g")
    assert sample.value == value
    assert exposition.total("vllm:c_total") == value
