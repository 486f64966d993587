"""Learning from measured starts: what counts, how far it moves an estimate, and what it must not touch."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowage.memory.calibration import (
    UNCALIBRATED,
    CalibrationKey,
    StartRecord,
    Terms,
    calibrate,
)
from stowage.memory.estimates import Estimate
from tests.memory.support import GIB

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
