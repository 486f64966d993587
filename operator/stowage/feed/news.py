"""Whether a report says something that is worth a reconciliation.

Reports arrive every few seconds from every pod; almost all of them repeat the last one. Compared is with the report
that last caused work, not with the last one seen, so that a slow drift is noticed too.
"""

from __future__ import annotations

from stowage_runtime.contract import RuntimeReport

STEP = 0.05
"""Share of the KV cache or of the download that counts as a step."""

_LEAST = STEP - 1e-9  # 0.15 - 0.10 is a little less than 0.05


def is_news(report: RuntimeReport, told: RuntimeReport | None) -> bool:
    """Whether `report` differs enough from the one that was last acted on."""
    if told is None:
        return True
    same = (
        report.phase == told.phase
        and report.failure == told.failure
        and report.engine == told.engine
        and report.launch_hash == told.launch_hash
        and report.progress.note == told.progress.note
    )
    return not same or _moved(report, told)


def _moved(report: RuntimeReport, told: RuntimeReport) -> bool:
    if abs(_fetched(report) - _fetched(told)) >= _LEAST:
        return True
    now, before = report.utilization, told.utilization
    if now is None or before is None:
        return now is not before
    if (now.running + now.waiting == 0) != (before.running + before.waiting == 0):
        return True
    return abs(now.kv_usage - before.kv_usage) >= _LEAST


def _fetched(report: RuntimeReport) -> float:
    progress = report.progress
    return progress.fetched_bytes / progress.total_bytes if progress.total_bytes else 0.0
