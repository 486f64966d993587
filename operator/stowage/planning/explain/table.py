"""A planning result as a table for the terminal, in thirty lines at most.

Shows the choice, its forecast and cost, the memory of the tightest rank as bars, what was assumed, what else would do,
and what was rejected; what finds no room is counted, and `stowage explain` has it. Plain text without colours: what is
printed can be pasted into a ticket.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from stowage.memory.ledger import Ledger
from stowage.performance.levers.effect import Lever, LeverVerdict
from stowage.planning.explain.levers import plan_levers
from stowage.planning.explain.lines import INDENT, Row, bullet, row, wrapped_rows
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
_WIDEST: Final = 118
_NARROW: Final = 100
_MOST_LINES: Final = 30
_MOST_LEVERS: Final = 3
_TITLES: Final = ("Would fit", "Notes", "Levers", "Fits too", "Rejected")
"""Sections by how much they are missed."""

_CUT: Final = ("Fits too", "Rejected")
_CUT_LINES: Final = 2
_SAID_ABOVE: Final = "Costs rest on the default price"
"""The beginning of a note that the line about costs says already."""

Sections = dict[str, list[list[str]]]
"""Items of each section by its title, every item already wrapped."""


def plan_table(
    request: PlanRequest, result: PlanResult, levers: Sequence[Lever] | None = None, width: int = _WIDEST
) -> str:
    """Render the result of one request; `levers` None: those of the plan are computed."""
    head = list(wrapped_rows(head_rows(request, result), width))
    if result.plan is not None:
        head += ["", *ledger_bars(result.plan.ledger, brief=width < _NARROW)]
    sections = _sections(request, result, levers)
    wrapped = {
        title: [_item(text, title, width) for text in items] for title, items in sections.items() if items
    }
    left_out = 1 if width >= _WIDEST else 2
    rest = list(_shortened(wrapped, max(0, _MOST_LINES - len(head) - 1 - left_out), width))
    return "\n".join([*head, *(["", *rest] if rest else [])])


def head_rows(request: PlanRequest, result: PlanResult) -> Iterator[Row]:
    """Give what is said in any case, each with its title: the plan or the refusal, and the plans beside it."""
    profile = request.profile
    commit = f" @ {profile.revision[:12]}" if profile.revision else ""
    yield "Model", f"{profile.source}{commit}"
    if result.plan is not None:
        yield from _chosen(result.plan)
    else:
        reason = f"{result.refusal.reason.value}: " if result.refusal is not None else ""
        yield "Refused", f"{reason}{summary(result)}"
    yield from _beside(result)


def _sections(
    request: PlanRequest, result: PlanResult, levers: Sequence[Lever] | None
) -> dict[str, list[str]]:
    """Give what is shown as far as there is room: what would help, what to know, what else there is."""
    found: dict[str, list[str]] = {}
    if result.plan is None:
        found["Would fit"] = list(result.would_fit)
    else:
        said = result.plan.shortfall
        found["Levers"] = list(_levers(plan_levers(request, result.plan) if levers is None else levers))
        found["Notes"] = [
            note for note in result.plan.notes if note not in said and not note.startswith(_SAID_ABOVE)
        ]
    found["Fits too"] = [f"{each.candidate}: {each.message}" for each in result.alternatives]
    found["Rejected"] = list(_rejections(result))
    return found


def ledger_bars(ledger: Ledger, *, brief: bool = False) -> Iterator[str]:
    """Draw where the bytes of one rank go, one bar each; `brief`: all that works for the model as one."""
    band = ledger.kv_cache_band
    spread = (
        ""
        if ledger.kv_cache_pinned
        else f"  ({band.low / _GIB:.2f} to {band.high / _GIB:.2f}: estimates' band)"
    )
    other = ledger.persistent_bytes + ledger.non_torch_bytes + ledger.in_use_before_bytes
    work = [("activations", ledger.activation_bytes, ""), ("CUDA graphs", ledger.cuda_graph_bytes, "")]
    rows = [
        ("weights", ledger.weights_allocated_bytes, ""),
        ("KV cache", max(0, ledger.kv_cache_bytes), spread),
        *([] if brief else work),
        ("other", other + (sum(amount for _, amount, _ in work) if brief else 0), ""),
        ("free", max(0, ledger.free_bytes), ""),
    ]
    budget = f"{ledger.budget_bytes / _GIB:.2f} GiB for the engine"
    use = "KV cache pinned" if ledger.kv_cache_pinned else budget
    yield f"Memory of {ledger.rank}: {ledger.verdict}; {ledger.total_bytes / _GIB:.2f} GiB in all, {use}"
    for name, amount, remark in rows:
        bar = "█" * round(_BAR_WIDTH * amount / max(1, ledger.total_bytes))
        yield f"  {name:<12}{amount / _GIB:>8.2f} GiB  {bar}{remark}".rstrip()


def speed_rows(plan: Plan) -> Iterator[Row]:
    """Give the rows about speed and cost; none for a plan without a forecast."""
    found, traffic = plan.forecast, plan.traffic
    if found is not None and traffic is not None:
        yield (
            "Forecast",
            f"TTFT {latency_words(found.ttft_seconds)}, TPOT {latency_words(found.tpot_seconds)}, "
            f"{rate_words(found.output_tokens_per_second)} tokens/s",
        )
        yield (
            "",
            f"per replica at {traffic_words(traffic)}; p{traffic.percentile} TTFT "
            f"{duration(found.ttft_p95_seconds)}, TPOT {duration(found.tpot_p95_seconds)}",
        )
        yield from (("Shortfall", sentence) for sentence in plan.shortfall)
        yield "Bound", both_bounds(found)
        yield "Estimate", answered_words(found)
    if plan.cost_per_hour is not None:
        yield "Cost", cost_words(plan)


def _chosen(plan: Plan) -> Iterator[Row]:
    settings, ledger = plan.settings, plan.ledger
    lossy = f", lossy: {plan.lossy}" if plan.lossy else ""
    replicas = f"{plan.replicas} replicas of " if plan.replicas > 1 else ""
    yield (
        "Plan",
        f"{replicas}{shape_words(plan)}{_where(plan)}, vLLM {plan.engine_version}, {plan.precision}{lossy}",
    )
    yield (
        "Serves",
        f"{settings.max_model_len:,} tokens of context; {plan.concurrency_served:,} requests of "
        f"{plan.request_tokens:,} tokens at once; {ledger.kv_tokens:,} tokens of KV cache{_of_what(plan)}",
    )
    batch = f"max_num_seqs {settings.max_num_seqs}, max_num_batched_tokens {settings.max_num_batched_tokens}"
    utilization = settings.gpu_memory_utilization
    share = "" if utilization is None else f"gpu_memory_utilization {utilization:g}, "
    backend = f", {plan.attention_backend}" if plan.attention_backend else ""
    yield "Settings", f"{share}{batch}{', enforce_eager' if settings.enforce_eager else ''}{backend}"
    yield "Placement", f"{plan.placement.kind}: {plan.placement.evidence}"
    if ledger.caution:
        yield "Verdict", f"{ledger.verdict}: {ledger.caution}"
    yield from speed_rows(plan)


def _of_what(plan: Plan) -> str:
    """Say what the KV cache is of, where a replica is not all or not one."""
    data = plan.settings.data_parallel_size
    if data > 1:
        return f" on each of {data} data-parallel ranks"
    return " per replica" if plan.replicas > 1 else ""


def _where(plan: Plan) -> str:
    places = plan.placement.node_names
    if not places:
        return ""
    more = len(places) - 1
    return f" on {places[0]}" + (f" and {more} more place{'s' if more > 1 else ''}" if more else "")


def _beside(result: PlanResult) -> Iterator[Row]:
    """Name the plans beside the one that is taken."""
    rows = (
        ("Contender", result.contender, "; served once its accuracy check has passed"),
        ("Better", result.better, ""),
        ("Multi-node", result.multi_node, "; planned, but not served by this version"),
    )
    for title, plan, means in rows:
        if plan is not None:
            money_words = (
                ""
                if plan.cost_per_hour is None
                else f", {money(plan.cost_per_hour, plan.cost_unit)} per hour"
            )
            yield title, f"{plan_words(plan)}{money_words}{means}"


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


def _item(text: str, title: str, width: int) -> list[str]:
    """Wrap an item; what was not taken is cut after two lines, since there is more of it than of anything else."""
    lines = bullet(text, width, INDENT)
    if title not in _CUT or len(lines) <= _CUT_LINES:
        return lines
    return [*lines[: _CUT_LINES - 1], f"{lines[_CUT_LINES - 1]} …"]


def _shortened(sections: Sections, room: int, width: int) -> Iterator[str]:
    """Leave out items of the longest sections until all have room, and say how many were left out.

    Sections are in order of weight and lose their last items; notes become more specific and lose their first.
    """
    titles = [title for title, items in sections.items() if items]
    kept = {title: list(sections[title]) for title in titles}
    while sum(map(_lines, kept.values())) > room:
        filled = [title for title in titles if kept[title]]
        longest = max(filled, key=lambda title: _expendable(title, kept[title]))
        kept[longest].pop(0 if longest == "Notes" else -1)
    for title in titles:
        for place, line in enumerate(line for item in kept[title] for line in item):
            yield row(title, line.removeprefix(INDENT)) if place == 0 else line
    left = {title: len(sections[title]) - len(kept[title]) for title in titles}
    counts = [f"{count} under {title}" for title, count in left.items() if count]
    if counts:
        yield from wrapped_rows([("", f"(left out: {', '.join(counts)}; see stowage explain)")], width)


def _expendable(title: str, items: list[list[str]]) -> tuple[int, int, int]:
    """Say how easily a section does without an item: long ones first, two lines less where it says what would help.

    The last item of each goes only when nothing else is left, the most telling last.
    """
    lines = _lines(items) - (2 if title in ("Levers", "Would fit") else 0)
    return len(items) > 1, lines if len(items) > 1 else 0, _TITLES.index(title)


def _lines(items: list[list[str]]) -> int:
    return sum(map(len, items))
