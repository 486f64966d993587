"""Scores over answers: errors, verdicts, refusals, promises. A case without an answer is counted, with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from bench.accuracy.prediction import Answer

FIGURES = ("weights_gib", "kv_available_gib", "kv_tokens", "max_concurrency")
_OVER_PROMISED = 0.20


def summary(answers: Sequence[Answer]) -> dict[str, Any]:
    """Score a set of answers; errors are absolute relative errors."""
    answered = [entry for entry in answers if entry.unanswered is None]
    started = [entry for entry in answered if entry.case.started]
    refused = [entry for entry in answered if not entry.case.started]
    return {
        "cases": len(answers),
        "unanswered": {entry.case.identifier: entry.unanswered for entry in answers if entry.unanswered},
        **{name: errors(started, name) for name in FIGURES},
        "verdicts": {
            verdict: sum(entry.predicted["verdict"] == verdict for entry in answered)
            for verdict in ("Fits", "Tight", "DoesNotFit")
        },
        "refusals_caught": sum(entry.predicted["verdict"] == "DoesNotFit" for entry in refused),
        "refusals": len(refused),
        "refusals_missed": [e.case.identifier for e in refused if e.predicted["verdict"] != "DoesNotFit"],
        "wrongly_refused": [e.case.identifier for e in started if e.predicted["verdict"] == "DoesNotFit"],
        "over_promised": [e.case.identifier for e in started if (e.error("kv_tokens") or 0) > _OVER_PROMISED],
    }


def errors(answers: Sequence[Answer], name: str) -> dict[str, Any]:
    """Give number, median, 90th percentile, and signed median of the relative errors of a figure."""
    signed = [error for entry in answers if (error := entry.error(name)) is not None]
    if not signed:
        return {"number": 0, "median": None, "p90": None, "signed": None}
    return {
        "number": len(signed),
        "median": median(map(abs, signed)),
        "p90": percentile([abs(error) for error in signed], 0.9),
        "signed": median(signed),
    }


def percentile(values: Sequence[float], share: float) -> float:
    """Give a percentile by linear interpolation; `values` must not be empty."""
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)
