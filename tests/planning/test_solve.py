"""The largest number with slack is found exactly, whatever the slack's pieces look like."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stowage.planning.search.solve import largest


@st.composite
def falling(draw: st.DrawFn) -> list[float]:
    """A slack at 0, 1, 2 …: pieces of different slopes, flat ones included."""
    steps = draw(st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.0, 1.0, 7.0, 400.0]), min_size=1, max_size=300))
    value, values = draw(st.floats(-5, 900)), []
    for step in steps:
        values.append(value)
        value -= step
    return values


@given(falling())
def test_it_is_the_last_place_with_slack(values: list[float]) -> None:
    expected = max((place for place, value in enumerate(values) if value >= 0), default=0)
    assert largest(values.__getitem__, 0, len(values) - 1) == expected


@given(st.integers(0, 4000), st.integers(1, 4000), st.floats(0.1, 50))
def test_a_straight_line_takes_a_handful_of_questions(root: int, high: int, slope: float) -> None:
    asked: list[int] = []

    def slack(place: int) -> float:
        asked.append(place)
        return (root - place) * slope

    assert largest(slack, 0, high) == min(root, high)
    assert len(asked) <= 6


def test_an_empty_range_is_its_lower_end() -> None:
    assert largest(lambda place: -1.0, 7, 7) == 7
    assert largest(lambda place: -1.0, 7, 3) == 7
