"""Durations, quantities, plan options, and the bounds of status.plan."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stowage.api.duration import DURATION_PATTERN, parse_duration_seconds
from stowage.api.plan_options import PLAN_OPTIONS, option_conflict
from stowage.api.quantity import parse_quantity, parse_quantity_bytes
from stowage.api.v1alpha1 import PlanRejection, PlanStatus
from stowage.api.v1alpha1.plan_status import PLAN_MAX_BYTES
from tests.api.sample_status import full_plan


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("50ms", 0.05), ("2s", 2.0), ("1m30s", 90.0), ("1.5h", 5400.0), ("2h", 7200.0), ("1h1m1s1ms", 3661.001)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "2", "s", "2 s", "-1s", "1d", "1s\n", "٢s"])
def test_what_is_no_duration_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; write for example 50ms"):
        parse_duration_seconds(text)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(["ms", "s", "m", "h"])), min_size=1))
def test_a_duration_is_the_sum_of_its_parts_in_the_form_the_server_accepts(
    parts: list[tuple[int, str]],
) -> None:
    text = "".join(f"{amount}{unit}" for amount, unit in parts)
    assert re.fullmatch(DURATION_PATTERN, text)
    each = [parse_duration_seconds(f"{amount}{unit}") for amount, unit in parts]
    assert parse_duration_seconds(text) == pytest.approx(sum(each))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("20Gi", 20 * 2**30),
        ("256Mi", 256 * 2**20),
        ("1.5Gi", 3 * 2**29),
        ("2e9", 2_000_000_000),
        ("1E3", 1000),
        ("1E", 10**18),
        ("2Ei", 2 * 2**60),
        ("1500m", 2),
        (".5k", 500),
        ("9007199254740993", 9007199254740993),
        (1073741824, 1073741824),
    ],
)
def test_quantities_are_exact(text: int | str, value: int) -> None:
    assert parse_quantity_bytes(text) == value


def test_a_quantity_below_one_is_exact() -> None:
    assert parse_quantity("1500m") == Decimal("1.5")


@pytest.mark.parametrize("text", ["", "20GB", "1 Gi", "-1Gi", "Gi", "1e", "1ki", "1Gi\n"])
def test_what_is_no_quantity_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity; write for example 20Gi"):
        parse_quantity(text)


@pytest.mark.parametrize("option", sorted(PLAN_OPTIONS))
def test_every_plan_option_is_refused_with_its_advice(option: str) -> None:
    sentence = f"{option} is set by Stowage: {PLAN_OPTIONS[option]}"
    assert option_conflict(option) == sentence
    assert option_conflict(f"{option}=1") == sentence


@pytest.mark.parametrize(
    "argument",
    [
        "--enable-prefix-caching",
        "4",
        "value",
        "-1",
        "--max-log-len=20",
        "--model-impl=vllm",
        "auto",
        "--seed",
    ],
)
def test_other_arguments_are_free(argument: str) -> None:
    assert option_conflict(argument) is None


def test_a_plan_within_the_limit_stays_as_it_is() -> None:
    assert full_plan().within_limit() is not None
    assert full_plan().within_limit() == full_plan()


@settings(deadline=None)
@given(st.integers(0, 16), st.integers(0, 10), st.integers(1, 3000))
def test_a_plan_never_exceeds_its_limit_and_keeps_its_choice(
    notes: int, rejections: int, length: int
) -> None:
    plan = PlanStatus(
        summary="x" * length,
        gpus="4x NVIDIA-L4",
        notes=("é" * length,) * notes,
        rejections=tuple(
            PlanRejection(reason="InsufficientMemory", count=1, example="y" * length)
            for _ in range(rejections)
        ),
    )
    short = plan.within_limit()
    assert short.size_bytes <= PLAN_MAX_BYTES
    assert (short.summary, short.gpus) == (plan.summary, plan.gpus)
    assert short.notes == plan.notes[: len(short.notes)]
