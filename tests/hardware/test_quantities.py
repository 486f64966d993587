"""Quantities are exact, whatever unit they are written in."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowage.hardware.resources import QuantityError, Resources, parse_quantity, parse_resources


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("4", 4, id="a plain number"),
        pytest.param(4, 4, id="a number that YAML has parsed already"),
        pytest.param("500m", Fraction(1, 2), id="thousandths"),
        pytest.param("1.5Gi", 3 * 2**29, id="a fraction of a binary unit"),
        pytest.param("0.1", Fraction(1, 10), id="a decimal fraction without rounding"),
        pytest.param("2115271393Ki", 2115271393 * 1024, id="memory as the kubelet reports it"),
        pytest.param("100k", 100_000, id="decimal kilo is lower case"),
        pytest.param("128M", 128_000_000, id="decimal mega"),
        pytest.param("1G", 10**9, id="decimal giga"),
        pytest.param("1Ei", 2**60, id="exbibytes"),
        pytest.param("1E", 10**18, id="E alone is exa"),
        pytest.param("1E3", 1000, id="E with digits is an exponent"),
        pytest.param("129e6", 129_000_000, id="an exponent in lower case"),
        pytest.param("12e-1", Fraction(6, 5), id="a negative exponent"),
        pytest.param("1739461754880", 1739461754880, id="bytes without a unit"),
        pytest.param(".5", Fraction(1, 2), id="no leading zero"),
        pytest.param("-1", -1, id="a negative amount"),
        pytest.param("250u", Fraction(1, 4000), id="millionths"),
    ],
)
def test_quantity_is_read_exactly(text: str | int, value: Fraction | int) -> None:
    assert parse_quantity(text) == value


@pytest.mark.parametrize("text", ["", "4 GiB", "4K", "1.2.3", "auto", "0x10", "1e", "Gi", "١٢"])
def test_what_is_not_a_quantity_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(QuantityError, match="is not a Kubernetes quantity"):
        parse_quantity(text)


def test_the_sentence_names_the_resource() -> None:
    with pytest.raises(QuantityError, match="Resource memory: 'much'"):
        parse_resources({"memory": "much"})


@given(st.integers(0, 10**6), st.sampled_from(["", "k", "M", "Ki", "Mi", "Gi"]))
def test_amounts_add_up_as_integers(number: int, unit: str) -> None:
    one = parse_resources({"memory": f"{number}{unit}"})
    assert one.plus(one).memory_bytes == parse_resources({"memory": f"{2 * number}{unit}"}).memory_bytes
    assert one.plus(one).minus(one) == one


def test_fractions_of_the_counted_unit_are_rounded_up_as_the_scheduler_does() -> None:
    assert parse_resources({"cpu": "0.0001", "memory": "0.5"}) == Resources(cpu_millicores=1, memory_bytes=1)


def test_only_what_is_asked_for_can_lack() -> None:
    room = Resources(cpu_millicores=-100, memory_bytes=10, pods=1)
    assert Resources(memory_bytes=10, pods=1).fits(room)
    assert Resources(cpu_millicores=1, extended={"nvidia.com/gpu": 1}).lacking(room) == (
        "cpu",
        "nvidia.com/gpu",
    )
