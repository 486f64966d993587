"""The whole planning result as plain values: what `-o json` writes and `--compare` reads."""

from __future__ import annotations

from typing import Any

from stowage.planning.explain.status import status_plan
from stowage.planning.explain.words import summary
from stowage.planning.plain import to_plain
from stowage.planning.result import PlanResult


def result_document(result: PlanResult) -> dict[str, Any]:
    """Give the whole result as plain values, for machines."""
    refusal = result.refusal
    return {
        "fits": result.plan is not None,
        "summary": summary(result),
        "reason": None if refusal is None else refusal.reason.value,
        "message": None if refusal is None else refusal.sentence,
        "plan": None if result.plan is None else to_plain(result.plan),
        "contender": None if result.contender is None else to_plain(result.contender),
        "better": None if result.better is None else to_plain(result.better),
        "multiNode": None if result.multi_node is None else to_plain(result.multi_node),
        "statusPlan": status_plan(result),
        "rejections": to_plain(result.rejections),
        "alternatives": to_plain(result.alternatives),
        "wouldFit": list(result.would_fit),
    }
