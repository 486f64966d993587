"""A planning result as a table for the terminal, in about thirty lines.

Shows the choice, the memory of the tightest rank as bars, what was assumed, what else would fit, and what was
rejected. Plain text without colours: what is printed can be pasted into a ticket.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from textwrap import wrap
from typing import Final

from stowage.memory.ledger import Ledger
from stowage.planning.explain import grouped, shape_words, summary
from stowage.planning.result import Plan, PlanRequest, PlanResult

_GIB: Final = 2**30
_BAR_WIDTH: Final = 40
_LINE_WIDTH: Final = 110
_MOST_ALTERNATIVES: Final = 4
_MOST_REASONS: Final = 10
_WRAP: Final[Mapping[str, bool]] = {"break_long_words": False, "break_on_hyphens": False}


def plan_table(request: PlanRequest, result: PlanResult) -> str:
    """Render the result of one request."""
    profile = request.profile
    commit = f" @ {profile.revision[:12]}" if profile.revision else ""
    lines = [_row("Model", f"{profile.source}{commit}")]
    if result.plan is not None:
        lines += _chosen(result.plan)
        lines += _section("Notes", (f"- {note}" for note in result.plan.notes))
    else:
        reason = f"{result.refusal.reason.value}: " if result.refusal is not None else ""
        lines += _filled("Refused", f"{reason}{summary(result)}")
        lines += _section("Would fit", (f"- {change}" for change in result.would_fit))
    lines += _section("Fits too", _alternatives(result))
    lines += _section("Rejected", _rejections(result))
    return "\n".join(lines)


def _chosen(plan: Plan) -> Iterator[str]:
    settings, ledger = plan.settings, plan.ledger
    places = plan.placement.node_names
    where = (
        f" on {places[0]}" + (f" and {len(places) - 1} more places" if len(places) > 1 else "")
        if places
        else ""
    )
    yield _row("Plan", f"{shape_words(plan)}{where}, vLLM {plan.engine_version}, {plan.precision}")
    yield _row(
        "Serves",
        f"{settings.max_model_len:,} tokens of context; {plan.concurrency_served:,} requests of "
        f"{plan.request_tokens:,} tokens at once; {ledger.kv_tokens:,} tokens of KV cache",
    )
    batch = f"max_num_seqs {settings.max_num_seqs}, max_num_batched_tokens {settings.max_num_batched_tokens}"
    utilization = settings.gpu_memory_utilization
    share = "" if utilization is None else f"gpu_memory_utilization {utilization:g}, "
    yield _row("Settings", f"{share}{batch}{', enforce_eager' if settings.enforce_eager else ''}")
    yield _row("Placement", f"{plan.placement.kind}: {plan.placement.evidence}")
    yield _row("Verdict", f"{ledger.verdict}{': ' + ledger.caution if ledger.caution else ''}")
    yield ""
    yield from ledger_bars(ledger)


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
    yield f"Memory of {ledger.rank}: {ledger.total_bytes / _GIB:.2f} GiB, of which the engine may use " + (
        f"{ledger.budget_bytes / _GIB:.2f}" if not ledger.kv_cache_pinned else "what is listed"
    )
    for name, amount, remark in rows:
        bar = "█" * round(_BAR_WIDTH * amount / max(1, ledger.total_bytes))
        yield f"  {name:<12}{amount / _GIB:>8.2f} GiB  {bar}{remark}".rstrip()


def _alternatives(result: PlanResult) -> Iterator[str]:
    for each in result.alternatives[:_MOST_ALTERNATIVES]:
        yield f"- {each.candidate}: {each.message}"
    more = len(result.alternatives) - _MOST_ALTERNATIVES
    if more > 0:
        yield f"- and {more} more (-o json lists them all)"


def _rejections(result: PlanResult) -> Iterator[str]:
    for reason, count, example in list(grouped(result.rejections))[:_MOST_REASONS]:
        often = f" ×{count}, for example" if count > 1 else ""
        yield f"- {reason}{often} {example}"


def _section(title: str, items: Iterator[str]) -> Iterator[str]:
    texts = list(items)
    if texts:
        yield ""
        yield title
    for text in texts:
        yield from wrap(
            text, _LINE_WIDTH, initial_indent="  ", subsequent_indent="    ", break_long_words=False
        )


def _row(name: str, text: str) -> str:
    return f"{name:<10} {text}"


def _filled(name: str, text: str) -> list[str]:
    return wrap(
        text, _LINE_WIDTH, initial_indent=f"{name:<10} ", subsequent_indent=" " * 11, break_long_words=False
    )
