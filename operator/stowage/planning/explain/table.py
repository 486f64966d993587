"""A planning result as a table for the terminal, in thirty lines at most.

Shows the choice, its forecast and cost, the memory of the tightest rank as bars, what was assumed, what else would do,
and what was rejected; what finds no room is counted, and `stowage explain` has it. Plain text without colours: what is
printed can be pasted into a ticket.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from textwrap import wrap
from typing import Final

from stowage.memory.ledger import Ledger
from stowage.performance.levers.effect import Lever, LeverVerdict
from stowage.planning.explain.levers import plan_levers
from stowage.planning.explain.speed import (
    answered_words,
    both_bounds,
    cost_words,
    latency_words,
    rate_words,
    traffic_words,
)
from stowage.planning.explain.words import grouped, plan_words, shape_words, summary
from stowage.planning.result import Plan, PlanRequest, PlanResult
from stowage.planning.speed_notes import duration, money

_GIB: Final = 2**30
_BAR_WIDTH: Final = 40
_LINE_WIDTH: Final = 118
_MOST_LINES: Final = 30
_MOST_LEVERS: Final = 3
_INDENT: Final = " " * 11
_CUT: Final = ("Fits too", "Rejected")
_CUT_LINES: Final = 2
_SAID_ABOVE: Final = "Costs rest on the default price"
"""The beginning of a note that the line about costs says already."""

Sections = dict[str, list[list[str]]]
"""Items of each section by its title, every item already wrapped."""


def plan_table(request: PlanRequest, result: PlanResult, levers: Sequence[Lever] | None = None) -> str:
    """Render the result of one request; `levers` None: those of the plan are computed."""
    profile = request.profile
    commit = f" @ {profile.revision[:12]}" if profile.revision else ""
    lines = [_row("Model", f"{profile.source}{commit}")]
    sections: dict[str, Iterable[str]] = {}
    if result.plan is not None:
        lines += _chosen(result.plan)
        sections["Levers"] = _levers(plan_levers(request, result.plan) if levers is None else levers)
        sections["Notes"] = [note for note in result.plan.notes if not note.startswith(_SAID_ABOVE)]
    else:
        reason = f"{result.refusal.reason.value}: " if result.refusal is not None else ""
        lines += _filled("Refused", f"{reason}{summary(result)}")
        sections["Would fit"] = result.would_fit
    lines += _beside(result)
    if result.plan is not None:
        lines += ["", *ledger_bars(result.plan.ledger)]
    sections["Fits too"] = (f"{each.candidate}: {each.message}" for each in result.alternatives)
    sections["Rejected"] = _rejections(result)
    wrapped = {title: [_item(text, title) for text in items] for title, items in sections.items()}
    return "\n".join([*lines, "", *_shortened(wrapped, _MOST_LINES - len(lines) - 2)])


def ledger_bars(ledger: Ledger) -> Iterator[str]:
    """Draw where the bytes of one rank go, one bar each."""
    band = ledger.kv_cache_band
    spread = (
        ""
        if ledger.kv_cache_pinned
        else f"  ({band.low / _GIB:.2f} to {band.high / _GIB:.2f}: estimates' band)"
    )
    other = ledger.persistent_bytes + ledger.non_torch_bytes + ledger.in_use_before_bytes
    rows = [
        ("weights", ledger.weights_allocated_bytes, ""),
        ("KV cache", max(0, ledger.kv_cache_bytes), spread),
        ("activations", ledger.activation_bytes, ""),
        ("CUDA graphs", ledger.cuda_graph_bytes, ""),
        ("other", other, ""),
        ("free", max(0, ledger.free_bytes), ""),
    ]
    use = "what is listed" if ledger.kv_cache_pinned else f"{ledger.budget_bytes / _GIB:.2f}"
    yield (
        f"Memory of {ledger.rank}: {ledger.verdict}; {ledger.total_bytes / _GIB:.2f} GiB, of which the engine may use "
        f"{use}"
    )
    for name, amount, remark in rows:
        bar = "█" * round(_BAR_WIDTH * amount / max(1, ledger.total_bytes))
        yield f"  {name:<12}{amount / _GIB:>8.2f} GiB  {bar}{remark}".rstrip()


def speed_rows(plan: Plan) -> Iterator[str]:
    """Give the lines about speed and cost; none for a plan without a forecast."""
    found, traffic = plan.forecast, plan.traffic
    if found is not None and traffic is not None:
        yield _row(
            "Forecast",
            f"TTFT {latency_words(found.ttft_seconds)}, TPOT {latency_words(found.tpot_seconds)}, "
            f"{rate_words(found.output_tokens_per_second)} tokens/s",
        )
        yield _row(
            "",
            f"per replica at {traffic_words(traffic)}; p{traffic.percentile} TTFT "
            f"{duration(found.ttft_p95_seconds)}, TPOT {duration(found.tpot_p95_seconds)}",
        )
        yield from _filled("Bound", both_bounds(found))
        yield _row("Estimate", answered_words(found))
    if plan.cost_per_hour is not None:
        yield _row("Cost", cost_words(plan))


def _chosen(plan: Plan) -> Iterator[str]:
    settings, ledger = plan.settings, plan.ledger
    lossy = f", lossy: {plan.lossy}" if plan.lossy else ""
    yield _row(
        "Plan", f"{shape_words(plan)}{_where(plan)}, vLLM {plan.engine_version}, {plan.precision}{lossy}"
    )
    yield _row(
        "Serves",
        f"{settings.max_model_len:,} tokens of context; {plan.concurrency_served:,} requests of "
        f"{plan.request_tokens:,} tokens at once; {ledger.kv_tokens:,} tokens of KV cache",
    )
    batch = f"max_num_seqs {settings.max_num_seqs}, max_num_batched_tokens {settings.max_num_batched_tokens}"
    utilization = settings.gpu_memory_utilization
    share = "" if utilization is None else f"gpu_memory_utilization {utilization:g}, "
    backend = f", {plan.attention_backend}" if plan.attention_backend else ""
    yield _row("Settings", f"{share}{batch}{', enforce_eager' if settings.enforce_eager else ''}{backend}")
    yield _row("Placement", f"{plan.placement.kind}: {plan.placement.evidence}")
    if ledger.caution:
        yield from _filled("Verdict", f"{ledger.verdict}: {ledger.caution}")
    yield from speed_rows(plan)


def _where(plan: Plan) -> str:
    places = plan.placement.node_names
    if not places:
        return ""
    more = len(places) - 1
    return f" on {places[0]}" + (f" and {more} more place{'s' if more > 1 else ''}" if more else "")


def _beside(result: PlanResult) -> Iterator[str]:
    """Name the plans beside the one that is taken."""
    rows = (("Contender", result.contender), ("Better", result.better), ("Multi-node", result.multi_node))
    for title, plan in rows:
        if plan is not None:
            hourly = (
                ""
                if plan.cost_per_hour is None
                else f", {money(plan.cost_per_hour, plan.cost_unit)} per hour"
            )
            yield from _filled(title, f"{plan_words(plan)}{hourly}")


def _levers(found: Sequence[Lever]) -> Iterator[str]:
    """Give the lever that helps most, the useless ones together, and then more, the best of each kind."""
    helping = [lever for lever in found if lever.verdict in (LeverVerdict.HELPS, LeverVerdict.TRADES)]
    kinds: dict[str, Lever] = {}
    for lever in helping:
        kinds.setdefault("another GPU" if lever.is_other_gpu else lever.name.split()[0], lever)
    shown = list(kinds.values())[:_MOST_LEVERS]
    useless = [lever.name for lever in found if lever.verdict is LeverVerdict.USELESS]
    sentences = [lever.sentence for lever in shown]
    if useless:
        sentences.insert(1, f"useless here: {', '.join(useless)}")
    yield from sentences


def _rejections(result: PlanResult) -> Iterator[str]:
    for reason, count, example in grouped(result.rejections):
        often = f" ×{count}, for example" if count > 1 else ""
        yield f"{reason}{often} {example}"


def _item(text: str, title: str) -> list[str]:
    """Wrap an item; what was not taken is cut after two lines, since there is more of it than of anything else."""
    lines = wrap(
        f"- {text}",
        _LINE_WIDTH,
        initial_indent=_INDENT,
        subsequent_indent=f"{_INDENT}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    if title not in _CUT or len(lines) <= _CUT_LINES:
        return lines
    return [*lines[: _CUT_LINES - 1], f"{lines[_CUT_LINES - 1]} …"]


def _shortened(sections: Sections, room: int) -> Iterator[str]:
    """Leave out items of the longest sections until all have room, and say how many were left out.

    Sections are in order of weight and lose their last items; notes become more specific and lose their first.
    """
    titles = [title for title, items in sections.items() if items]
    kept = {title: list(sections[title]) for title in titles}
    while sum(_lines(items) for items in kept.values()) > room:
        longest = max(
            titles, key=lambda title: (len(kept[title]) > 1, _weight(title, kept), titles.index(title))
        )
        kept[longest].pop(0 if longest == "Notes" else -1)
    for title in titles:
        for place, line in enumerate(line for item in kept[title] for line in item):
            yield _row(title, line.removeprefix(_INDENT)) if place == 0 else line
    left = {title: len(sections[title]) - len(kept[title]) for title in titles}
    counts = [f"{count} under {title}" for title, count in left.items() if count]
    if counts:
        yield _row("", f"({', '.join(counts)} are left out; stowage explain shows them)")


def _weight(title: str, kept: Sections) -> int:
    """Weigh a section by its lines, two fewer where it says what would help."""
    return _lines(kept[title]) - (2 if title in ("Levers", "Would fit") else 0)


def _lines(items: list[list[str]]) -> int:
    return sum(map(len, items))


def _row(name: str, text: str) -> str:
    return f"{name:<10} {text}"


def _filled(name: str, text: str) -> list[str]:
    return wrap(
        text,
        _LINE_WIDTH,
        initial_indent=f"{name:<10} ",
        subsequent_indent=_INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )
