"""Which model runner serves what: lists of architectures that grew, until there was only one."""

from __future__ import annotations

import pytest

from stowage.memory.release.model_runner import model_runner
from tests.memory.support import version
from tests.model.support import published

DENSE, LLAMA = "Qwen--Qwen3-32B", "meta-llama--Llama-3.1-8B-Instruct"
EXPERTS, STATES = "Qwen--Qwen3-30B-A3B", "Qwen--Qwen3.5-27B"
QUANTIZED = "synthetic--llama-8b-fp8-static"


@pytest.mark.parametrize(
    ("folder", "release", "runner"),
    [
        pytest.param(DENSE, "0.21.0", "V1", id="before 0.22 everything is on V1"),
        pytest.param(DENSE, "0.22.1", "V2", id="0.22 moved Qwen3 first"),
        pytest.param(LLAMA, "0.22.1", "V1", id="and nothing else"),
        pytest.param(LLAMA, "0.23.0", "V2", id="0.23 moved Llama"),
        pytest.param(QUANTIZED, "0.23.0", "V1", id="but not quantised"),
        pytest.param(QUANTIZED, "0.24.0", "V2", id="which 0.24 did"),
        pytest.param(EXPERTS, "0.26.0", "V1", id="0.25 to 0.28 leave most experts on V1"),
        pytest.param(STATES, "0.26.0", "V1", id="and layers with states"),
        pytest.param(DENSE, "0.26.0", "V2", id="but no dense model"),
        pytest.param(EXPERTS, "0.29.0", "V2", id="0.29 moved the rest"),
        pytest.param(STATES, "0.32.0", "V2", id="with states too"),
    ],
)
def test_runner_by_release(folder: str, release: str, runner: str) -> None:
    assert model_runner(published(folder), version(release), None) == runner


@pytest.mark.parametrize(
    ("method", "release", "runner"),
    [
        pytest.param("ngram", "0.26.0", "V1", id="n-grams kept a model on V1"),
        pytest.param("ngram", "0.32.0", "V2", id="until 0.29"),
        pytest.param("medusa", "0.32.0", "V1", id="Medusa heads do still"),
        pytest.param("eagle3", "0.26.0", "V2", id="EAGLE never did"),
    ],
)
def test_ways_to_guess_tokens_decide_too(method: str, release: str, runner: str) -> None:
    assert model_runner(published(DENSE), version(release), method) == runner
