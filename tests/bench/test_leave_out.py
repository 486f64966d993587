"""Constants without one source at a time: what the others ask for, and how far the left-out source is then off."""

from __future__ import annotations

from typing import Any

import pytest

from bench.accuracy.case import Case
from bench.accuracy.leave_out import CONSTANTS, report, starts
from bench.accuracy.models import ModelFolder
from bench.accuracy.prediction import answer
from stowage.memory.estimates import unified_growth_bytes
from tests.bench.test_memory_accuracy import ROW
from tests.model.support import MODELS

FOLDER = ModelFolder(MODELS)
SHARED, SORTED = CONSTANTS
GROWTH = unified_growth_bytes((12, 1)).value / 2**30


def spark(source: str, more_gib: float) -> Case:
    """Make a start on memory that GPU and host share, whose host processes grew by so much more than assumed."""
    row: dict[str, Any] = {**ROW, "source": f"{source} : log", "gpu_name": "NVIDIA GB10 (DGX Spark)"}
    left = answer(Case(row), FOLDER).predicted["kv_available_gib"]
    return Case({**row, "kv_available_gib": left - more_gib})


def test_each_source_is_predicted_from_the_others_alone() -> None:
    known = starts([spark("a", 0.5), spark("b", 1.0), spark("b", 1.0)], FOLDER)
    lines = report(SHARED, known)
    assert f"{GROWTH:.2f} GiB, 3 starts" in lines[0]
    assert f"without a (1): {GROWTH + 1:.2f}" in lines[1]
    assert "-" in lines[1].split("then")[1]
    assert f"without b (2): {GROWTH + 0.5:.2f}" in lines[2]
    assert "+" in lines[2].split("then")[1]


def test_one_source_alone_cannot_be_left_out() -> None:
    assert report(SHARED, starts([spark("a", 0.5)], FOLDER)) == [
        "growth of memory that GPU and host share: 1 source; nothing can be left out"
    ]


@pytest.mark.parametrize(
    ("changes", "tells"),
    [
        pytest.param(
            {"vllm_version": "0.13.0", "gpu_name": "H100 80GB HBM3"},
            True,
            id="a thousand requests that are sorted",
        ),
        pytest.param({"vllm_version": "0.13.0"}, True, id="and a few hundred"),
        pytest.param({"vllm_version": "0.17.1"}, False, id="not where nothing is sorted"),
        pytest.param({"vllm_version": "0.13.0", "max_num_seqs": 8}, False, id="nor where layers take more"),
        pytest.param(
            {"vllm_version": "0.13.0", "cmd_complete": None}, False, id="nor rows that are no core rows"
        ),
    ],
)
def test_which_starts_tell_of_the_sampler(changes: dict[str, Any], tells: bool) -> None:
    known = starts([Case({**ROW, "source": "a", **changes})], FOLDER)
    assert any(SORTED.tells(start) for start in known) is tells
