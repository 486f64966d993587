"""The roofline of one GPU with prefill and decode on it, as a part of the picture of a plan.

The roof is that of the catalog's peaks; efficiencies are in the forecast, not here. The roof bends at the ridge of
prefill's formats.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import ceil, floor, log10
from typing import Final

from stowage.commands import svg
from stowage.hardware.gpu import Gpu
from stowage.performance.boundness import Boundness
from stowage.performance.forecast import Forecast
from stowage.planning.explain.speed import intensity

HEIGHT: Final = 384
"""Pixels that the part takes, its axes' names included."""

_TERA: Final = 1e12
_LEFT: Final = 110
_RIGHT: Final = 900
_HEADROOM: Final = 34
_PLOT_HEIGHT: Final = 280
_LOOKS: Final = {"prefill": "first", "decode": "second"}
_LEAST_INTENSITY: Final = 0.01
_TOO_CLOSE: Final = 20


class _Axes:
    """Both axes in decades: intensity from left to right, FLOP/s from bottom to top, in a plot that begins at `top`."""

    def __init__(self, places: list[float], ridge: float, rate: float, top: float) -> None:
        self.ridge, self.rate, self.peak = ridge, rate, ridge * rate
        self.low = floor(log10(min(1.0, *places)))
        self.high = ceil(log10(max(10 * ridge, 2 * max(places))))
        self.least = floor(log10(min(places) * rate / 2))
        self.most = ceil(log10(self.peak * 1.2))
        self.top, self.bottom = top, top + _PLOT_HEIGHT

    def across(self, flops_per_byte: float) -> float:
        """Give the place of an intensity in pixels."""
        share = (log10(flops_per_byte) - self.low) / (self.high - self.low)
        return _LEFT + share * (_RIGHT - _LEFT)

    def up(self, flops: float) -> float:
        """Give the place of a rate in pixels."""
        share = (log10(flops) - self.least) / (self.most - self.least)
        return self.bottom - share * _PLOT_HEIGHT

    def roof(self, flops_per_byte: float) -> float:
        """Give the most FLOP/s at an intensity."""
        return min(self.peak, flops_per_byte * self.rate)


def roofline(gpu: Gpu, forecast: Forecast, top: float) -> Iterator[str]:
    """Draw the roof and where both phases lie under it."""
    phases = {"prefill": forecast.prefill, "decode": forecast.decode}
    places = [_place(phase) for phase in phases.values()]
    ridge = forecast.prefill.ridge_flops_per_byte
    axes = _Axes(places, ridge, float(gpu.memory_bytes_per_second), top + _HEADROOM)
    yield svg.text((svg.MARGIN, top), _heading(axes), bold=True)
    yield from _grid(axes)
    yield from _roof(axes)
    heights = [axes.up(axes.roof(place)) for place in places]
    close = abs(heights[0] - heights[1]) < _TOO_CLOSE
    for name, phase in phases.items():
        yield from _point(axes, name, phase, 18 if close and name == "decode" else 0)


def _heading(axes: _Axes) -> str:
    peaks = f"{axes.peak / _TERA:,.0f} TFLOP/s, {axes.rate / _TERA:.2f} TB/s"
    return f"Roofline of one GPU at its peaks: {peaks}, ridge at {axes.ridge:,.0f} FLOP/B"


def _place(phase: Boundness) -> float:
    return max(_LEAST_INTENSITY, phase.intensity_flops_per_byte)


def _grid(axes: _Axes) -> Iterator[str]:
    for decade in range(axes.low, axes.high + 1):
        place = axes.across(10.0**decade)
        yield svg.line((place, axes.top), (place, axes.bottom), "grid")
        yield svg.text((place, axes.bottom + 18), f"{10.0**decade:,g}", anchor="middle")
    for decade in range(axes.least, axes.most + 1):
        place = axes.up(10.0**decade)
        yield svg.line((_LEFT, place), (_RIGHT, place), "grid")
        yield svg.text((_LEFT - 8, place + 4), f"{10.0**decade / _TERA:,g}", anchor="end")
    yield svg.text((_LEFT - 8, axes.top - 14), "TFLOP/s", "muted", anchor="end")
    middle = (_LEFT + _RIGHT) / 2
    words = "arithmetic intensity: FLOP for each byte read from memory"
    yield svg.text((middle, axes.bottom + 38), words, "muted", anchor="middle")


def _roof(axes: _Axes) -> Iterator[str]:
    left = max(10.0**axes.low, 10.0**axes.least / axes.rate)
    corners = [
        (axes.across(left), axes.up(left * axes.rate)),
        (axes.across(axes.ridge), axes.up(axes.peak)),
        (axes.across(10.0**axes.high), axes.up(axes.peak)),
    ]
    for start, end in pairwise(corners):
        yield svg.line(start, end, "line", width=2)
    yield svg.line(corners[1], (corners[1][0], axes.bottom), "edge", dashed=True)


def _point(axes: _Axes, name: str, phase: Boundness, lower: float) -> Iterator[str]:
    """Mark a phase: under the slope its words stand right of it, under the level part above it."""
    across, up = axes.across(_place(phase)), axes.up(axes.roof(_place(phase)))
    words = f"{name}: {intensity(phase)} FLOP/B, {phase.bound.value} {phase.shares[phase.bound]:.0%}"
    yield f'<circle class="{_LOOKS[name]}" cx="{across:.1f}" cy="{up:.1f}" r="7"/>'
    width = svg.text_width(words)
    if phase.intensity_flops_per_byte < axes.ridge:
        fits = across + 14 + width < svg.WIDTH - svg.MARGIN
        place, anchor = (
            ((across + 14, up + 18 + lower), "start") if fits else ((_RIGHT, up + 30 + lower), "end")
        )
    else:
        left = min(max(across, _LEFT + width / 2), _RIGHT - width / 2)
        place, anchor = (left, up - 16 - lower), "middle"
    yield svg.text(place, words, _LOOKS[name], anchor=anchor, bold=True)
