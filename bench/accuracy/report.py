"""The tables that people read: one line for each case, then scores of core and other rows and by group."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

from bench.accuracy.prediction import Answer
from bench.accuracy.score import FIGURES, errors, summary


def show(answers: Sequence[Answer], console: Console) -> None:
    """Print everything."""
    core, others = [a for a in answers if a.core], [a for a in answers if not a.core]
    console.print(_cases("Core rows", core))
    console.print(_cases("Other rows, with what was assumed", others, assumptions=True))
    console.print(_scores({"core": core, "others": others, "all": answers}))
    for title, key in _GROUPS.items():
        names = sorted({key(entry) for entry in answers})
        console.print(_groups(title, {name: [a for a in answers if key(a) == name] for name in names}))


_GROUPS: dict[str, Callable[[Answer], str]] = {
    "engine version": lambda entry: ".".join((entry.case.release or "not stated").split(".")[:2]),
    "GPU": lambda entry: entry.gpu or "not known",
    "architecture": lambda entry: entry.family or "not known",
}


def _cases(title: str, answers: Sequence[Answer], assumptions: bool = False) -> Table:
    table = Table("case", "model", "GPU", "weights GiB", "KV GiB", "KV tokens", "verdict", title=title)
    if assumptions:
        table.add_column("assumed", max_width=50)
    for entry in answers:
        row = [entry.case.identifier, str(entry.case.model_id), str(entry.case.gpu_name)]
        if entry.unanswered is not None:
            row += ["", "", "", f"unanswered: {entry.unanswered}"]
        else:
            row += [_pair(entry, "weights_gib"), _pair(entry, "kv_available_gib"), _pair(entry, "kv_tokens")]
            row += [f"{entry.predicted['verdict']} / {entry.measured['verdict']}"]
        table.add_row(*row, *(["; ".join(entry.assumed)] if assumptions else []))
    return table


def _pair(entry: Answer, name: str) -> str:
    predicted, measured = entry.predicted[name], entry.measured[name]
    if measured is None:
        return "" if predicted is None else f"{_number(predicted)} / –"
    if predicted is None:
        return f"– / {_number(measured)}"
    error = entry.error(name)
    shown = "" if error is None else f" ({error:+.1%})"
    return f"{_number(predicted)} / {_number(measured)}{shown}"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def _scores(sets: dict[str, Sequence[Answer]]) -> Table:
    table = Table("", *sets, title="Scores (predicted / measured; errors are absolute)")
    scores = {name: summary(answers) for name, answers in sets.items()}
    table.add_row("cases (unanswered)", *(f"{s['cases']} ({len(s['unanswered'])})" for s in scores.values()))
    for figure in FIGURES:
        table.add_row(figure, *(_errors_text(score[figure]) for score in scores.values()))
    table.add_row(
        "Fits / Tight / DoesNotFit",
        *(" / ".join(str(n) for n in score["verdicts"].values()) for score in scores.values()),
    )
    table.add_row("refusals caught", *(f"{s['refusals_caught']} of {s['refusals']}" for s in scores.values()))
    for name in ("refusals_missed", "wrongly_refused", "over_promised"):
        table.add_row(name.replace("_", " "), *(", ".join(s[name]) or "none" for s in scores.values()))
    return table


def _errors_text(score: dict[str, float | None]) -> str:
    if score["median"] is None:
        return "–"
    return f"{score['median']:.2%} median, {score['p90']:.2%} p90, {score['signed']:+.1%} signed, n={score['number']}"


def _groups(title: str, groups: dict[str, Sequence[Answer]]) -> Table:
    table = Table(title, "cases", *FIGURES, "unanswered", title=f"By {title}")
    for name, answers in groups.items():
        started = [a for a in answers if a.unanswered is None and a.case.started]
        cells = [_short(errors(started, figure)) for figure in FIGURES]
        table.add_row(name, str(len(answers)), *cells, str(sum(a.unanswered is not None for a in answers)))
    return table


def _short(score: dict[str, float | None]) -> str:
    return "–" if score["median"] is None else f"{score['median']:.1%} / {score['p90']:.1%}"
