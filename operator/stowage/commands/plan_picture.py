"""`--picture` of a plan: the roofline with prefill and decode on it, what their time goes into, and the memory bar.

One SVG that any browser shows and that a pull request can hold. The roof is that of one GPU at the peaks of the
catalog; efficiencies are in the forecast, not in the picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from itertools import pairwise
from math import ceil, floor, log10
from pathlib import Path
from typing import Final

from stowage.hardware.gpu import Gpu
from stowage.hardware.gpu_sharing import find_device
from stowage.memory.ledger import Ledger
from stowage.performance.boundness import Bound, Boundness
from stowage.performance.forecast import Forecast
from stowage.planning.explain import plan_words
from stowage.planning.explain.speed import intensity, latency_words, rate_words, traffic_words
from stowage.planning.plan import Plan

_GIB: Final = 2**30
_TERA: Final = 1e12
_WIDTH: Final = 960
_LEFT: Final = 110
_RIGHT: Final = 850
_PLOT_TOP: Final = 150
_PLOT_BOTTOM: Final = 450
_BAR_HEIGHT: Final = 30
_ROW_HEIGHT: Final = 40
_LABEL_FROM_PIXELS: Final = 64
_LEGEND_STEP: Final = 146
_LABEL_HALF: Final = 150
_GRID: Final = "#e2e2e2"
_MEMORY: Final = {
    "weights": "#3b6fb6",
    "KV cache": "#3f9b5f",
    "activations": "#e0a030",
    "CUDA graphs": "#9b59b6",
    "other": "#c0504d",
    "free": "#e6e6e6",
}
_BOUNDS: Final = {
    Bound.COMPUTE: "#e0a030",
    Bound.MEMORY_BANDWIDTH: "#3b6fb6",
    Bound.KV_CAPACITY: "#3f9b5f",
    Bound.INTERCONNECT: "#9b59b6",
    Bound.OVERHEAD: "#c0504d",
}
Point = tuple[float, float]
"""Pixels from the left and from the top."""

_PHASES: Final = {"prefill": "#b5651d", "decode": "#1f4e8c"}


def write_picture(path: Path, title: str, plan: Plan) -> None:
    """Write the picture; raises OSError where the file cannot be written."""
    path.write_text(picture(title, plan), encoding="utf-8")


def picture(title: str, plan: Plan) -> str:
    """Draw a plan; one without a forecast has its memory alone."""
    gpu = None if plan.gpu_product is None else find_device(plan.gpu_product)
    lines = [_text(20, 30, title, size=17, weight="600"), _text(20, 54, plan_words(plan), colour="#444444")]
    bottom = 90
    if plan.forecast is not None and gpu is not None:
        lines += [
            _text(20, 74 + 18 * number, words, colour="#444444")
            for number, words in enumerate(_speed(plan, plan.forecast))
        ]
        lines += _roofline(gpu, plan.forecast)
        lines += _phase_bars(plan.forecast, _PLOT_BOTTOM + 70)
        bottom = _PLOT_BOTTOM + 70 + 2 * _ROW_HEIGHT + 50
    lines += _memory_bar(plan.ledger, bottom)
    height = bottom + _ROW_HEIGHT + 60
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
            'font-family="system-ui, sans-serif" font-size="13">',
            f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
            *lines,
            "</svg>",
            "",
        ]
    )


def _speed(plan: Plan, forecast: Forecast) -> tuple[str, ...]:
    seen = (
        f"TTFT {latency_words(forecast.ttft_seconds)}, TPOT {latency_words(forecast.tpot_seconds)}, "
        f"{rate_words(forecast.output_tokens_per_second)} tokens/s"
    )
    load = "" if plan.traffic is None else f"One replica at {traffic_words(plan.traffic)}."
    return seen, load, forecast.bottleneck.sentence


class _Axes:
    """Both axes of the roofline in decades: intensity from left to right, TFLOP/s from bottom to top."""

    def __init__(self, low: float, high: float, floor_flops: float, peak_flops: float) -> None:
        self.low, self.high = floor(log10(low)), ceil(log10(high))
        self.bottom, self.top = floor(log10(floor_flops)), ceil(log10(peak_flops * 1.2))

    def across(self, intensity_flops_per_byte: float) -> float:
        """Give the place of an intensity in pixels."""
        share = (log10(intensity_flops_per_byte) - self.low) / (self.high - self.low)
        return _LEFT + share * (_RIGHT - _LEFT)

    def up(self, flops: float) -> float:
        """Give the place of a rate in pixels."""
        share = (log10(flops) - self.bottom) / (self.top - self.bottom)
        return _PLOT_BOTTOM - share * (_PLOT_BOTTOM - _PLOT_TOP)

    def grid(self) -> Iterator[str]:
        """Draw a line for each decade, with its number."""
        for decade in range(self.low, self.high + 1):
            place = self.across(10.0**decade)
            yield _line((place, _PLOT_TOP), (place, _PLOT_BOTTOM), _GRID)
            yield _text(place, _PLOT_BOTTOM + 18, f"{10.0**decade:,g}", anchor="middle")
        for decade in range(self.bottom, self.top + 1):
            place = self.up(10.0**decade)
            yield _line((_LEFT, place), (_RIGHT, place), _GRID)
            yield _text(_LEFT - 8, place + 4, f"{10.0**decade / _TERA:,g}", anchor="end")
        yield _text(_LEFT, _PLOT_TOP - 10, "TFLOP/s of one GPU", colour="#444444")
        yield _text(
            (_LEFT + _RIGHT) / 2,
            _PLOT_BOTTOM + 38,
            "arithmetic intensity, FLOP per byte of memory",
            anchor="middle",
            colour="#444444",
        )


def _roofline(gpu: Gpu, forecast: Forecast) -> Iterator[str]:
    phases = {"prefill": forecast.prefill, "decode": forecast.decode}
    ridge, rate = forecast.prefill.ridge_flops_per_byte, float(gpu.memory_bytes_per_second)
    peak = ridge * rate
    places = [max(0.01, phase.intensity_flops_per_byte) for phase in phases.values()]
    low, high = min(1.0, *places), max(10 * ridge, 2 * max(places))
    axes = _Axes(low, high, min(places) * rate / 2, peak)
    left = 10.0**axes.low
    yield from axes.grid()
    corners = [
        (axes.across(max(left, 10.0**axes.bottom / rate)), axes.up(max(left * rate, 10.0**axes.bottom))),
        (axes.across(ridge), axes.up(peak)),
        (axes.across(10.0**axes.high), axes.up(peak)),
    ]
    for start, end in pairwise(corners):
        yield _line(start, end, "#222222", width=2)
    yield _line(corners[1], (corners[1][0], _PLOT_BOTTOM), "#888888", dashed=True)
    middle = axes.up(peak) + 44
    yield _text(axes.across(ridge) + 6, middle, f"ridge {ridge:,.0f} FLOP/B", colour="#666666")
    yield _text(_RIGHT, axes.up(peak) + 18, f"{peak / _TERA:,.0f} TFLOP/s", anchor="end", colour="#444444")
    yield _text(
        (corners[0][0] + corners[1][0]) / 2 - 12,
        (corners[0][1] + corners[1][1]) / 2 - 12,
        f"{rate / _TERA:.2f} TB/s",
        anchor="end",
        colour="#444444",
    )
    for name, phase in phases.items():
        yield from _point(axes, name, phase, min(peak, phase.intensity_flops_per_byte * rate))


def _point(axes: _Axes, name: str, phase: Boundness, flops: float) -> Iterator[str]:
    across, up = axes.across(max(0.01, phase.intensity_flops_per_byte)), axes.up(flops)
    words = f"{name}: {intensity(phase)} FLOP/B, {phase.bound.value} {phase.shares[phase.bound]:.0%}"
    colour = _PHASES[name]
    yield (
        f'<circle cx="{across:.1f}" cy="{up:.1f}" r="7" fill="{colour}"><title>{escape(words)}</title></circle>'
    )
    if phase.intensity_flops_per_byte < phase.ridge_flops_per_byte:
        yield _text(across + 14, up + 16, words, weight="600", colour=colour)
    else:
        left, anchor = (across, "middle") if across < _RIGHT - _LABEL_HALF else (_RIGHT, "end")
        yield _text(left, up - 16, words, anchor=anchor, weight="600", colour=colour)


def _phase_bars(forecast: Forecast, top: int) -> Iterator[str]:
    rows = (
        ("prefill", forecast.prefill_share, forecast.prefill),
        ("decode", 1 - forecast.prefill_share, forecast.decode),
    )
    for number, (name, share, phase) in enumerate(rows):
        place = top + number * _ROW_HEIGHT
        yield _text(20, place + 20, f"{name} {share:.0%}")
        parts = [(bound.value, phase.shares.get(bound, 0.0), colour) for bound, colour in _BOUNDS.items()]
        labels = {bound: f"{part:.0%}" for bound, part, _ in parts}
        yield from _stack(parts, labels, place)
    yield from _legend({bound.value: colour for bound, colour in _BOUNDS.items()}, top + 2 * _ROW_HEIGHT + 4)


def _memory_bar(ledger: Ledger, top: int) -> Iterator[str]:
    amounts = {
        "weights": ledger.weights_allocated_bytes,
        "KV cache": max(0, ledger.kv_cache_bytes),
        "activations": ledger.activation_bytes,
        "CUDA graphs": ledger.cuda_graph_bytes,
        "other": ledger.in_use_before_bytes + ledger.non_torch_bytes + ledger.persistent_bytes,
        "free": max(0, ledger.free_bytes),
    }
    whole = max(1, sum(amounts.values()), ledger.total_bytes)
    parts = [(name, amount / whole, _MEMORY[name]) for name, amount in amounts.items()]
    labels = {name: f"{amount / _GIB:.1f} GiB" for name, amount in amounts.items()}
    yield _text(20, top + 20, "memory")
    yield from _stack(parts, labels, top)
    yield _text(_RIGHT + 8, top + 20, f"{ledger.total_bytes / _GIB:.1f} GiB")
    yield from _legend(_MEMORY, top + _ROW_HEIGHT + 4)


def _stack(parts: list[tuple[str, float, str]], labels: dict[str, str], top: float) -> Iterator[str]:
    """Draw parts of a whole beside each other; those too thin for a label are named in the legend only."""
    left, width = float(_LEFT), _RIGHT - _LEFT
    for name, share, colour in parts:
        size = share * width
        yield (
            f'<rect x="{left:.1f}" y="{top}" width="{size:.1f}" height="{_BAR_HEIGHT}" fill="{colour}">'
            f"<title>{escape(name)}: {labels[name]}</title></rect>"
        )
        if size >= _LABEL_FROM_PIXELS:
            yield _text(left + 6, top + 20, labels[name], colour="#333333" if name == "free" else "#ffffff")
        left += size


def _legend(colours: dict[str, str], top: float) -> Iterator[str]:
    for position, (name, colour) in enumerate(colours.items()):
        left = _LEFT + position * _LEGEND_STEP
        yield f'<rect x="{left}" y="{top}" width="14" height="14" fill="{colour}"/>'
        yield _text(left + 20, top + 12, name)


def _line(start: Point, end: Point, colour: str, *, width: float = 1, dashed: bool = False) -> str:
    dashes = ' stroke-dasharray="4 4"' if dashed else ""
    return (
        f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}" '
        f'stroke="{colour}" stroke-width="{width:g}"{dashes}/>'
    )


def _text(  # noqa: PLR0913 - the attributes of an SVG element
    left: float,
    top: float,
    words: str,
    *,
    size: int = 13,
    weight: str = "400",
    colour: str = "#111111",
    anchor: str = "start",
) -> str:
    return (
        f'<text x="{left:.1f}" y="{top:.1f}" font-size="{size}" font-weight="{weight}" fill="{colour}" '
        f'text-anchor="{anchor}">{escape(words)}</text>'
    )
