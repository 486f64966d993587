"""Rows as people write them: names with counts in them, releases that are none, lengths of datasets, bursts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bench import latency_accuracy
from bench.latency.case import Case, read_cases
from bench.latency.datasets import dataset_spreads, is_round
from bench.latency.models import LatencyModels
from bench.latency.prediction import answer
from bench.latency.question import Question, ask
from bench.latency.written import WrittenGpu, precision_in_name, written_gpu
from stowage.performance.capacity import floor
from tests.bench.test_latency_accuracy import ROW
from tests.model.support import MODELS

DATA = Path(latency_accuracy.__file__).parent / "data"


def asked(**changes: Any) -> Question:
    found = ask(Case({**ROW, **changes}), LatencyModels(MODELS))
    assert isinstance(found, Question), found
    return found


@pytest.mark.parametrize(
    ("text", "name", "count"),
    [
        pytest.param("A100-SXM4-80GB", "A100-SXM4-80GB", None, id="a product name"),
        pytest.param("8xH100", "H100", 8, id="a count in front"),
        pytest.param("4 × A100 40GB", "A100 40GB", 4, id="a multiplication sign"),
        pytest.param("2x NVIDIA L40S", "NVIDIA L40S", 2, id="a vendor behind the count"),
        pytest.param("H100 80GB HBM3 x8", "H100 80GB HBM3", 8, id="a count behind"),
        pytest.param("L4 (2 GPUs)", "L4", 2, id="a count in parentheses"),
        pytest.param("4090", "4090", None, id="a number that is the name"),
        pytest.param("a2-highgpu", "", None, id="a machine type that names no GPU"),
    ],
)
def test_a_count_beside_a_gpus_name_is_told_from_it(text: str, name: str, count: int | None) -> None:
    assert written_gpu(text) == WrittenGpu(name, count)


def test_the_count_beside_the_name_stands_in_for_a_missing_one() -> None:
    question = asked(gpu_name="4xA100 80GB", gpu_count=None, tensor_parallel_size=None)
    assert question.serving.shape.tensor_parallel_size == 4
    assert asked(gpu_name="4xA100 80GB", gpu_count=2, tensor_parallel_size=None).serving.shape.world_size == 2


@pytest.mark.parametrize(
    ("model", "precision"),
    [
        pytest.param("Qwen/Qwen3-32B-AWQ", "awq", id="awq"),
        pytest.param("zai-org/GLM-4.6-FP8", "fp8", id="fp8"),
        pytest.param("org/Llama-3.1-8B-Instruct-quantized.w8a8", "int8", id="w8a8"),
        pytest.param("org/Model-GPTQ-Int8", "gptq8", id="eight bits of GPTQ"),
        pytest.param("nvidia/Llama-3.3-70B-Instruct-NVFP4", "nvfp4", id="nvfp4"),
        pytest.param("meta-llama/Llama-3.1-8B-Instruct", None, id="none"),
        pytest.param("fp8-lab/Llama-7B", None, id="a publisher's name does not count"),
    ],
)
def test_a_checkpoints_name_tells_its_precision(model: str, precision: str | None) -> None:
    assert precision_in_name(model) == precision


@pytest.mark.parametrize(
    ("written", "taken"),
    [
        pytest.param("vLLM v0.8.x (docker)", "0.8", id="half a release"),
        pytest.param("0.10.2+cu128 nightly", "0.10.2", id="a release among words"),
        pytest.param("latest", "0.11.0", id="no release"),
        pytest.param("0.1.7", "0.2.0", id="older than any known"),
        pytest.param(None, "0.11.0", id="nothing"),
    ],
)
def test_any_release_is_answered_and_the_one_taken_is_said(written: str | None, taken: str) -> None:
    question = asked(engine_version=written)
    assert question.serving.version.version == taken
    assert any(f"vLLM {taken}," in sentence for sentence in question.assumed)


@pytest.mark.parametrize(
    "length", [1, 4, 100, 128, 150, 500, 512, 550, 1000, 1019.5, 1024, 3100, 31999, 8000]
)
def test_lengths_that_somebody_typed_are_round(length: float) -> None:
    assert is_round(length)
    assert dataset_spreads(length, 200) is None


@pytest.mark.parametrize("length", [215.2, 217.4, 232.6, 686.3, 1374.0])
def test_other_lengths_are_those_of_a_dataset(length: float) -> None:
    found = dataset_spreads(length, 201.6)
    assert found is not None
    assert found[0] > 2
    assert dataset_spreads(length, 128) == (found[0], 1.0)


def test_a_run_of_a_dataset_ends_with_its_longest_answers_alone() -> None:
    load = {"max_concurrency": None, "request_rate_configured": "inf", "num_prompts": 500}
    even = answer(Case({**ROW, **load, "mean_output_len": 200}), LatencyModels(MODELS))
    spread = answer(
        Case({**ROW, **load, "mean_input_len": 512.7 * 1.05, "mean_output_len": 201.6}), LatencyModels(MODELS)
    )
    assert (spread.predicted["output_tok_s"] or 0) < 0.8 * (even.predicted["output_tok_s"] or 0)


def test_a_rate_above_what_the_server_sustains_is_a_burst_of_a_finite_run() -> None:
    waits = [
        answer(
            Case({**ROW, "max_concurrency": None, "request_rate_configured": 200, "num_prompts": number}),
            LatencyModels(MODELS),
        ).predicted["ttft_ms"]
        for number in (200, 1000, None)
    ]
    assert waits[0] is not None
    assert waits[1] is not None
    assert waits[1] > 2 * waits[0]
    assert waits[2] == pytest.approx(waits[1])


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"precision": 4}, id="a number of bits"),
        pytest.param({"precision": "???"}, id="a precision that nobody knows"),
        pytest.param({"max_concurrency": "32", "mean_input_len": "1,024"}, id="numbers as text"),
        pytest.param({"mean_output_len": 1}, id="a single token"),
        pytest.param({"tensor_parallel_size": 3, "gpu_count": 3}, id="ranks that divide nothing"),
        pytest.param({"gpu_name": "T4"}, id="a card that the weights do not fit on"),
        pytest.param({"mean_input_len": 217.4, "max_concurrency": 2000, "gpu_name": "L4"}, id="no room"),
    ],
)
def test_odd_rows_are_answered(changes: Mapping[str, Any]) -> None:
    found = answer(Case({**ROW, **changes}), LatencyModels(MODELS))
    assert found.unanswered is None
    assert all(value is None or value > 0 for value in found.predicted.values())
    assert found.predicted["ttft_ms"]


def test_a_bug_in_one_case_costs_that_case_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(case: Case, models: LatencyModels) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(latency_accuracy, "answer", broken)
    found = latency_accuracy._answered(Case(ROW), LatencyModels(MODELS))
    assert found.unanswered == "failed with ZeroDivisionError: by nothing"
    assert set(found.predicted.values()) == {None}


def test_published_runs_are_answered_and_none_is_sooner_than_physics_allows() -> None:
    models, cases = LatencyModels(DATA / "latency-models"), read_cases(DATA / "public-latency.jsonl")
    assert len(cases) > 200
    assert len({case.identifier for case in cases}) == len(cases)
    for case in cases[::7]:
        question = ask(case, models)
        assert isinstance(question, Question), question
        least = floor(question.serving, question.traffic)
        assert (case.positive("ttft_mean_ms") or 1e9) > 1000 * least.ttft_seconds
        assert (case.positive("tpot_mean_ms") or 1e9) > 980 * least.tpot_seconds
        assert str(case.source).startswith("https://")
        found = answer(case, models)
        assert found.unanswered is None
        assert all(found.predicted.values())
