"""Learning from measured starts: what counts, how far it moves an estimate, and what it must not touch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowage.memory.budget import ledger
from stowage.memory.calibration import (
    UNCALIBRATED,
    CalibrationKey,
    StartRecord,
    Terms,
    calibrate,
    calibration_key,
    start_record,
)
from stowage.memory.estimates import Estimate
from stowage.memory.ledger import Ledger
from tests.memory.support import GIB, H100, ledger_of, shape, version
from tests.model.support import published

KEY = CalibrationKey("0.11", "NVIDIA-H100-80GB-HBM3", 1, 1, "LlamaForCausalLM", 1024, 8192)
OTHER_MODEL = replace(KEY, architecture="Qwen3ForCausalLM", max_num_seqs=256)
GUESS = Estimate(0.5 * GIB, 0.1 * GIB, 1.0 * GIB)


def record(non_torch_gib: float = 0.13, key: CalibrationKey = KEY, missing_gib: float = 0.0) -> StartRecord:
    measured = Terms(int(4.76 * GIB), int(non_torch_gib * GIB), None)
    kv = int((71.26 - 14.99 - 4.76 - non_torch_gib - missing_gib) * GIB)
    predicted = Terms(int(4.67 * GIB), int(0.5 * GIB), int(0.6 * GIB))
    return StartRecord(key, predicted, measured, int(71.26 * GIB), int(14.99 * GIB), kv, False)


def test_nothing_measured_changes_nothing() -> None:
    assert UNCALIBRATED.adjust("non_torch", KEY, GUESS) == GUESS


def test_one_start_moves_the_estimate_and_narrows_its_band() -> None:
    learnt = calibrate([record()]).adjust("non_torch", KEY, GUESS)
    assert learnt.value == pytest.approx(0.13 * GIB, abs=2)
    assert learnt.high - learnt.low < GUESS.high - GUESS.low
    assert learnt.low >= 0


def test_a_term_that_the_log_does_not_print_keeps_its_estimate() -> None:
    assert calibrate([record()]).adjust("cuda_graph", KEY, GUESS) == GUESS


def test_a_log_whose_parts_do_not_add_up_teaches_nothing() -> None:
    assert calibrate([record(missing_gib=0.3)]) == UNCALIBRATED
    assert calibrate([record(missing_gib=0.05)]) != UNCALIBRATED


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(
            {"weights_bytes": -(10**15), "kv_cache_bytes": 10**15 + 70 * GIB}, id="less than nothing"
        ),
        pytest.param({"weights_bytes": 10**400, "kv_cache_bytes": -(10**400)}, id="more than there can be"),
    ],
)
def test_amounts_that_no_device_has_teach_nothing(changes: dict[str, Any]) -> None:
    whole = record()
    parts = whole.weights_bytes + whole.kv_cache_bytes
    wrong = replace(whole, **changes)
    wrong = replace(
        wrong, budget_bytes=whole.budget_bytes + wrong.weights_bytes + wrong.kv_cache_bytes - parts
    )
    assert calibrate([wrong]) == UNCALIBRATED


def test_what_lies_outside_torch_is_learnt_for_other_models_on_the_same_gpus_only() -> None:
    learnt = calibrate([record()])
    assert learnt.adjust("non_torch", OTHER_MODEL, GUESS) != GUESS
    assert learnt.adjust("activation", OTHER_MODEL, GUESS) == GUESS
    elsewhere = replace(OTHER_MODEL, device="NVIDIA-L4")
    assert learnt.adjust("non_torch", elsewhere, GUESS) == GUESS
    assert learnt.adjust("non_torch", replace(KEY, release="0.12"), GUESS) == GUESS


def test_one_wild_start_among_many_is_left_out() -> None:
    wild = [record(), record(0.14), record(0.12), record(0.13), record(3.0)]
    learnt = calibrate(wild).adjust("non_torch", KEY, GUESS)
    assert learnt.value == pytest.approx(0.13 * GIB, abs=0.01 * GIB)
    assert learnt.high < 0.3 * GIB


@given(st.lists(st.floats(0.0, 2.0), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_records_does_not_matter_and_bands_hold_the_value(values, random) -> None:  # type: ignore[no-untyped-def]
    records = [record(value) for value in values]
    shuffled = random.sample(records, len(records))
    assert calibrate(records) == calibrate(shuffled)
    learnt = calibrate(records).adjust("non_torch", KEY, GUESS)
    assert 0 <= learnt.low <= learnt.value <= learnt.high


def test_the_ledger_takes_what_was_learnt_and_narrows_its_band() -> None:
    profile, limits = published("Qwen--Qwen3-32B"), {"max_num_seqs": 64}
    guessed = ledger_of(profile, H100, "0.19.1", **limits)
    key = calibration_key(profile, shape(**limits), H100, version("0.19.1"))
    measured = Terms(guessed.activation_bytes + 2**20, guessed.non_torch_bytes + 2**28, 2**29)
    left = guessed.budget_bytes - guessed.weights_allocated_bytes
    kv = left - (measured.activation_bytes or 0) - (measured.non_torch_bytes or 0)
    start = start_record(
        key, guessed, measured, weights_bytes=guessed.weights_allocated_bytes, kv_cache_bytes=kv
    )
    assert start.adds_up
    learnt = ledger(profile, shape(**limits), H100, version("0.19.1"), calibrate([start]))
    assert isinstance(learnt, Ledger)
    assert learnt.non_torch_bytes == pytest.approx(guessed.non_torch_bytes + 2**28, abs=2)
    assert learnt.cuda_graph_bytes == pytest.approx(2**29, abs=2)
    assert learnt.kv_cache_bytes == pytest.approx(kv, abs=2**20)
    band, before = learnt.kv_cache_band, guessed.kv_cache_band
    assert band.high - band.low < before.high - before.low
    other = ledger(profile, shape(max_num_seqs=65), H100, version("0.19.1"), calibrate([start]))
    assert isinstance(other, Ledger)
    assert other.cuda_graph_bytes == ledger_of(profile, H100, "0.19.1", max_num_seqs=65).cuda_graph_bytes


@pytest.mark.parametrize(
    ("release", "term"),
    [
        pytest.param("0.26.0", "activation_bytes", id="older logs print buffers with activations"),
        pytest.param("0.32.0", "non_torch_bytes", id="newer ones with what was consumed"),
    ],
)
def test_buffers_are_compared_where_the_log_counts_them(release: str, term: str) -> None:
    planned = ledger_of(published("Qwen--Qwen3-32B"), H100, release)
    assert planned.persistent_bytes > 0
    start = start_record(KEY, planned, Terms(None, None, None), weights_bytes=0, kv_cache_bytes=0)
    assert getattr(start.predicted, term) == getattr(planned, term) + planned.persistent_bytes
