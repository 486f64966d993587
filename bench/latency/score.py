"""Scores over answers: errors overall, by GPU and by cell, against a plain roofline, and which layout is fastest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from bench.accuracy.score import percentile
from bench.latency.case import MEASURED
from bench.latency.prediction import Answer

Cell = tuple[str, str]


def summary(answers: Sequence[Answer]) -> dict[str, Any]:
    """Score a set of answers; errors are absolute relative errors."""
    return {
        "cases": len(answers),
        "unanswered": {entry.case.identifier: entry.unanswered for entry in answers if entry.unanswered},
        **{name: errors(answers, name) for name in MEASURED},
        "by_gpu": {
            gpu: {name: errors(group, name) for name in MEASURED}
            for gpu, group in grouped(answers, lambda entry: entry.gpu or "not known").items()
        },
        "cells": {f"{gpu} · {model}": scores for (gpu, model), scores in cells(answers).items()},
        "fastest_layout": fastest_layout(answers),
    }


def errors(answers: Sequence[Answer], name: str, plain: bool = False) -> dict[str, Any]:
    """Give number, median, 90th percentile, and signed median of the relative errors of a figure."""
    signed = [error for entry in answers if (error := entry.error(name, plain)) is not None]
    if not signed:
        return {"number": 0, "median": None, "p90": None, "signed": None}
    return {
        "number": len(signed),
        "median": median(map(abs, signed)),
        "p90": percentile([abs(error) for error in signed], 0.9),
        "signed": median(signed),
    }


def grouped(answers: Sequence[Answer], key: Callable[[Answer], Any]) -> dict[Any, list[Answer]]:
    """Put answers together that have the same key, in the order of the keys."""
    groups: dict[Any, list[Answer]] = defaultdict(list)
    for entry in answers:
        groups[key(entry)].append(entry)
    return dict(sorted(groups.items()))


def cells(answers: Sequence[Answer]) -> dict[Cell, dict[str, Any]]:
    """Give the scores of each GPU and model, and those of a plain roofline there."""
    found = grouped([a for a in answers if a.unanswered is None], lambda a: (a.gpu, str(a.case.model_id)))
    return {
        cell: {
            "number": len(group),
            **{name: errors(group, name) for name in ("ttft_ms", "tpot_ms")},
            **{f"plain_{name}": errors(group, name, plain=True) for name in ("ttft_ms", "tpot_ms")},
        }
        for cell, group in found.items()
    }


def fastest_layout(answers: Sequence[Answer]) -> dict[str, Any]:
    """Count the groups measured at several tensor-parallel sizes in which the fastest, by TPOT, was picked.

    Sizes that were measured within 2 % of the fastest count as fastest: repeats differ by more than that.
    """
    groups = grouped([a for a in answers if a.unanswered is None and a.measured["tpot_ms"]], _setup)
    asked = [group for group in groups.values() if len({a.case.tensor_parallel_size for a in group}) > 1]
    picked = [_is_picked(group) for group in asked]
    share = sum(picked) / len(picked) if picked else None
    return {"groups": len(picked), "picked": sum(picked), "share": share}


def _setup(entry: Answer) -> tuple[str, ...]:
    row = entry.case.row
    names = ("model_id", "gpu_name", "precision", "mean_input_len", "mean_output_len", "max_concurrency")
    return (*(str(row.get(name)) for name in names), str(row.get("data_parallel_size") or 1))


def _is_picked(group: Sequence[Answer]) -> bool:
    best = min(group, key=lambda entry: entry.predicted["tpot_ms"] or 0.0)
    least = min(entry.measured["tpot_ms"] or 0.0 for entry in group)
    return (best.measured["tpot_ms"] or 0.0) <= 1.02 * least
