"""The tables that people read: one line for each case, then scores overall, by GPU and by cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.latency.prediction import Answer
from bench.latency.score import summary

_NAMES = ("tpot_ms", "ttft_ms", "output_tok_s")


def show(answers: Sequence[Answer], console: Console, each: bool = True) -> None:
    """Print everything; `each` False leaves out the line for each case."""
    scores = summary(answers)
    if each:
        console.print(_cases(answers))
    console.print(_overall(scores))
    console.print(_cells(scores["cells"]))
    pick = scores["fastest_layout"]
    if pick["groups"]:
        console.print(
            f"fastest TP picked in {pick['picked']} of {pick['groups']} groups ({pick['share']:.1%})"
        )


def _cases(answers: Sequence[Answer]) -> Table:
    table = Table(
        "case", "model", "GPU", "TP", "TPOT ms", "TTFT ms", "tokens/s", title="Predicted / measured"
    )
    table.add_column("assumed", max_width=50)
    for entry in answers:
        row = [entry.case.identifier, str(entry.case.model_id), str(entry.case.gpu_name)]
        if entry.unanswered is not None:
            row += ["", "", "", f"unanswered: {entry.unanswered}"]
        else:
            row += [str(entry.case.tensor_parallel_size or "–"), *(_pair(entry, name) for name in _NAMES)]
        table.add_row(*row, "; ".join(entry.assumed))
    return table


def _pair(entry: Answer, name: str) -> str:
    predicted, measured, error = entry.predicted[name], entry.measured[name], entry.error(name)
    left = "–" if predicted is None else f"{predicted:,.1f}"
    right = "–" if measured is None else f"{measured:,.1f}"
    return f"{left} / {right}" + ("" if error is None else f" ({error:+.0%})")


def _overall(scores: Mapping[str, Any]) -> Table:
    table = Table("", "cases", "TPOT", "TTFT", "tokens/s", title="Errors: median, p90, signed median")
    table.add_row(
        "all",
        f"{scores['cases']} ({len(scores['unanswered'])} unanswered)",
        *map(text_of, (scores[n] for n in _NAMES)),
    )
    for gpu, group in scores["by_gpu"].items():
        table.add_row(gpu, str(group["tpot_ms"]["number"]), *(text_of(group[name]) for name in _NAMES))
    return table


def _cells(cells: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(
        "GPU · model",
        "cases",
        "TPOT",
        "plain roofline",
        "TTFT",
        "plain roofline",
        title="By cell: median error",
    )
    for name, cell in cells.items():
        pairs = [(cell[f], cell[f"plain_{f}"]) for f in ("tpot_ms", "ttft_ms")]
        shown = [_short(score) + ("" if _better(score, plain) else " !") for score, plain in pairs]
        table.add_row(name, str(cell["number"]), shown[0], _short(pairs[0][1]), shown[1], _short(pairs[1][1]))
    return table


def _better(score: Mapping[str, Any], plain: Mapping[str, Any]) -> bool:
    return score["median"] is None or plain["median"] is None or score["median"] <= plain["median"]


def text_of(score: Mapping[str, Any]) -> str:
    """Say the errors of a figure: median, 90th percentile, signed median."""
    if score["median"] is None:
        return "–"
    return f"{score['median']:.1%}, {score['p90']:.1%}, {score['signed']:+.1%}"


def _short(score: Mapping[str, Any]) -> str:
    return "–" if score["median"] is None else f"{score['median']:.1%}"
