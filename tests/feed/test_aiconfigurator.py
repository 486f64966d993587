"""The second estimator: what it is asked, what it refuses, how its answer is dressed, and one real answer."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from typing import Any

import pytest

from stowage.api.refusal import Refusal
from stowage.feed import aiconfigurator_worker
from stowage.feed.aiconfigurator_estimator import AiconfiguratorEstimator, question_of
from stowage.performance.forecast import Forecast
from stowage.performance.serving import Serving
from stowage.performance.traffic import Traffic
from tests.performance.replicas import MIXTURE, SEVENTY, forecast_of, replica

TRAFFIC = Traffic(1024, 256, concurrency=32)
ANSWER = {"ttft_ms": 120.0, "tpot_ms": 12.0, "requests_per_second": 9.5, "version": "0.24.0"}


def sourced(serving: Serving, source: str) -> Serving:
    return replace(serving, profile=replace(serving.profile, source=f"hf://{source}"))


def test_the_question_counts_requests_for_each_stage_and_rank() -> None:
    serving = replica(MIXTURE, tensor_parallel_size=2, pipeline_parallel_size=2, data_parallel_size=2)
    question = question_of(serving, TRAFFIC, 16.0)
    assert not isinstance(question, Refusal)
    assert question["batch"] == 32 / 2 / 2
    assert (question["moe_tp_size"], question["moe_ep_size"]) == (4, 1)
    assert question["kv_cache"] == "bfloat16"
    spread = replace(serving, shape=replace(serving.shape, enable_expert_parallel=True))
    found = question_of(spread, TRAFFIC, 16.0)
    assert not isinstance(found, Refusal)
    assert (found["moe_tp_size"], found["moe_ep_size"]) == (1, 4)


def test_cache_format_and_prefix_are_said() -> None:
    serving = replica(SEVENTY, tensor_parallel_size=4, kv_cache_dtype="fp8")
    question = question_of(serving, replace(TRAFFIC, prefix_hit_rate=0.5), 16.0)
    assert not isinstance(question, Refusal)
    assert question["kv_cache"] == "fp8"
    assert question["prefix_tokens"] == 512
    renamed = question_of(sourced(serving, "meta-llama/Llama-3.1-70B"), TRAFFIC, 16.0)
    assert not isinstance(renamed, Refusal)
    assert renamed["model"] == "meta-llama/Meta-Llama-3.1-70B"


@pytest.mark.parametrize(
    ("gpu", "shape", "why"),
    [
        pytest.param("RTX-4090", {}, "no measurements", id="a GPU it has not measured"),
        pytest.param(
            "H100", {"quantization": "fp8"}, "precision from the checkpoint", id="precision on load"
        ),
    ],
)
def test_what_it_has_no_terms_for_is_refused(gpu: str, shape: dict[str, Any], why: str) -> None:
    found = AiconfiguratorEstimator().forecast(replica(gpu=gpu, **shape), TRAFFIC)
    assert isinstance(found, Refusal)
    assert why in found.message


def test_its_latencies_replace_ours_and_verdicts_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def ask(self: AiconfiguratorEstimator, text: str) -> dict[str, Any]:
        asked.append(text)
        return dict(ANSWER)

    monkeypatch.setattr(AiconfiguratorEstimator, "_ask", ask)
    estimator, serving = AiconfiguratorEstimator(), replica(MIXTURE)
    found = estimator.forecast(serving, TRAFFIC)
    assert estimator.forecast(serving, TRAFFIC) == found
    assert len(asked) == 1, "remembered"
    ours = forecast_of(serving, TRAFFIC)
    assert isinstance(found, Forecast)
    assert found.answered_by == estimator.name == "aiconfigurator"
    assert found.tpot_seconds.central == 0.012
    assert found.output_tokens_per_second.central == pytest.approx(9.5 * 256)
    assert (found.prefill, found.decode, found.bottleneck) == (ours.prefill, ours.decode, ours.bottleneck)
    assert "vLLM 0.24.0" in found.assumptions[-1]


@pytest.mark.parametrize(
    ("done", "why"),
    [
        pytest.param(subprocess.CompletedProcess([], 1, "", ""), "ended with code 1", id="a crash"),
        pytest.param(
            subprocess.CompletedProcess([], 0, 'noise\n{"refused": "no data"}\n', ""), "no data", id="no data"
        ),
        pytest.param(subprocess.TimeoutExpired("x", 1), "no answer within", id="no answer"),
    ],
)
def test_a_process_that_gives_nothing_is_a_refusal(
    monkeypatch: pytest.MonkeyPatch, done: object, why: str
) -> None:
    def run(*_: object, **__: object) -> object:
        if isinstance(done, Exception):
            raise done
        return done

    monkeypatch.setattr(subprocess, "run", run)
    found = AiconfiguratorEstimator().forecast(replica(MIXTURE), TRAFFIC)
    assert isinstance(found, Refusal)
    assert why in found.message


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        pytest.param("0.30.0", "0.24.0", id="the newest up to the asked one"),
        pytest.param("0.21.0", "0.20.0", id="not one that is newer"),
        pytest.param("0.9.0", "0.20.0", id="the oldest where all are newer"),
    ],
)
def test_the_release_is_chosen_and_not_left_to_the_package(asked: str, chosen: str) -> None:
    class Slots:
        @staticmethod
        def get_version_slots(system: str, backend: str) -> dict[str, str | None]:
            return {"current": "0.24.0", "previous": "0.20.0", "next": None}

    assert aiconfigurator_worker._version(Slots, {"system": "h100_sxm", "version": asked}) == chosen


@pytest.mark.timeout(400)
def test_a_real_answer_is_near_ours() -> None:
    serving = sourced(replica("Qwen--Qwen3-32B", tensor_parallel_size=4), "Qwen/Qwen3-32B")
    found = AiconfiguratorEstimator().forecast(serving, TRAFFIC)
    assert isinstance(found, Forecast), found
    ours = forecast_of(serving, TRAFFIC)
    assert found.tpot_seconds.central == pytest.approx(ours.tpot_seconds.central, rel=0.4)
