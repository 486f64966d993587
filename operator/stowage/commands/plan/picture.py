"""`--picture` of a plan: the roofline with prefill and decode on it, what their time goes into, and the memory bar.

One SVG that any browser shows and that a pull request can hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from stowage.commands import svg
from stowage.commands.memory.picture import legend_of, memory_stack
from stowage.commands.roofline_picture import HEIGHT, roofline
from stowage.hardware.gpu_sharing import find_device
from stowage.memory.ledger import Ledger
from stowage.performance.boundness import Bound
from stowage.performance.forecast import Forecast
from stowage.planning.explain import plan_words
from stowage.planning.explain.speed import cost_words, latency_words, rate_words, traffic_words
from stowage.planning.plan import Plan

_GIB: Final = 2**30
_LEFT: Final = 110
_BAR: Final = (690, 30)
_ROW_HEIGHT: Final = 40
_BOUNDS: Final = {
    Bound.COMPUTE: svg.ORANGE,
    Bound.MEMORY_BANDWIDTH: svg.BLUE,
    Bound.KV_CAPACITY: svg.GREEN,
    Bound.INTERCONNECT: svg.PINK,
    Bound.OVERHEAD: svg.RED,
}


def picture(title: str, plan: Plan) -> str:
    """Draw a plan; one without a forecast has its memory alone."""
    gpu = None if plan.gpu_product is None else find_device(plan.gpu_product)
    lines = [svg.text((svg.MARGIN, 34), title, bold=True, size=17)]
    said, top = svg.paragraph(_subtitles(plan), 60)
    lines += said
    top += 18
    if plan.forecast is not None and gpu is not None:
        lines += roofline(gpu, plan.forecast, top)
        bars, top = _phase_bars(plan.forecast, top + HEIGHT + 14)
        lines += bars
        top += 28
    bars, top = _memory_bar(plan.ledger, top)
    return svg.sheet([*lines, *bars], top + 16)


def _subtitles(plan: Plan) -> Iterator[str]:
    replicas = f", {plan.replicas} replicas" if plan.replicas > 1 else ""
    yield f"{plan_words(plan)}{replicas}, vLLM {plan.engine_version}"
    found = plan.forecast
    if found is None:
        return
    if plan.traffic is not None:
        yield f"One replica at {traffic_words(plan.traffic)}."
    yield (
        f"TTFT {latency_words(found.ttft_seconds)}, TPOT {latency_words(found.tpot_seconds)}, "
        f"{rate_words(found.output_tokens_per_second)} tokens/s."
    )
    if plan.cost_per_hour is not None:
        yield f"{cost_words(plan)}."
    yield found.bottleneck.sentence


def _phase_bars(forecast: Forecast, top: float) -> tuple[list[str], float]:
    rows = (
        ("prefill", forecast.prefill_share, forecast.prefill),
        ("decode", 1 - forecast.prefill_share, forecast.decode),
    )
    lines = [svg.text((svg.MARGIN, top), "What the GPU time goes into", bold=True)]
    top += 14
    for name, share, phase in rows:
        lines.append(svg.text((svg.MARGIN, top + 20), f"{name} {share:.0%}"))
        shares = ((bound, phase.shares.get(bound, 0.0), colour) for bound, colour in _BOUNDS.items())
        parts = [svg.Part(bound.value, part, f"{part:.0%}", colour) for bound, part, colour in shares]
        lines += svg.stack(parts, (_LEFT, top), _BAR)
        top += _ROW_HEIGHT
    found = {bound for _, _, phase in rows for bound, part in phase.shares.items() if part > 0}
    names = {bound.value: colour for bound, colour in _BOUNDS.items() if bound in found}
    named, top = svg.legend(names, _LEFT, top)
    return [*lines, *named], top


def _memory_bar(ledger: Ledger, top: float) -> tuple[list[str], float]:
    lines = [svg.text((svg.MARGIN, top), f"Memory of {ledger.rank}: {ledger.verdict}", bold=True)]
    top += 14
    lines += svg.stack(memory_stack(ledger), (_LEFT, top), _BAR)
    used, total = ledger.used_bytes / _GIB, ledger.total_bytes / _GIB
    lines.append(svg.text((_LEFT + _BAR[0] + 10, top + 20), f"{used:.1f} of {total:.1f} GiB"))
    named, top = svg.legend(legend_of(ledger), _LEFT, top + _ROW_HEIGHT)
    return [*lines, *named], top
