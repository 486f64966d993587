"""What the Job of an accuracy check is doing, read from it and its pod.

The pod's termination message carries the report, or the documented reason why there is none. Nothing is decided
here; a Job that has ended without a word counts as a failure with what Kubernetes says about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stowage.api.conditions import Reason
from stowage.diagnosis.finding import Severity
from stowage.diagnosis.pod import diagnose_pod
from stowage.engine.situation import Situation
from stowage.render import names
from stowage_runtime.contract import AccuracyReport, ContractError, Termination

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class JobState:
    """Exactly one of `report`, `failure` (reason, sentence) and `doing` (a sentence) is set."""

    report: AccuracyReport | None = None
    failure: tuple[str, str] | None = None
    doing: str | None = None


def find_job(situation: Situation, name: str) -> Object | None:
    """Our live Job of that name."""
    return next((job for ref, job in situation.children("Job") if ref.name == name), None)


def read_job(situation: Situation, job: Object, check_id: str) -> JobState:
    """Say what became of a Job, or what it does."""
    pods = [obj for ref, obj in situation.world.children.items() if ref.kind == "Pod" and _made_by(obj, job)]
    pod = max(pods, key=lambda each: str(each["metadata"].get("creationTimestamp", "")), default=None)
    if pod is not None:
        ended = _engine_end(pod)
        if ended is not None:
            return _read_end(ended, check_id)
    over = _ended_condition(job)
    if over is not None:
        return JobState(failure=_job_failure(over, pod))
    if pod is None:
        return JobState(doing="The check's pod has not been made yet.")
    return JobState(doing=diagnose_pod(pod, None).message)


def _made_by(pod: Object, job: Object) -> bool:
    owners = pod["metadata"].get("ownerReferences") or ()
    return any(owner.get("uid") == job["metadata"].get("uid") for owner in owners)


def _engine_end(pod: Object) -> Object | None:
    """How the pod's main container has ended, if it has."""
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        if status["name"] == names.ENGINE_CONTAINER:
            ended: Object | None = (status.get("state") or {}).get("terminated")
            return ended
    return None


def _read_end(ended: Object, check_id: str) -> JobState:
    words = (ended.get("message") or "").strip()
    try:
        report = AccuracyReport.from_json(words)
    except ContractError:
        return JobState(failure=_end_failure(ended, words))
    if report.check_id != check_id:
        return JobState(failure=(Reason.ENGINE_EXITED, "The pod's report is about another check."))
    return JobState(report=report)


def _end_failure(ended: Object, words: str) -> tuple[str, str]:
    try:
        termination = Termination.from_json(words)
    except ContractError:
        known = Reason.HOST_MEMORY_EXCEEDED if ended.get("reason") == "OOMKilled" else Reason.ENGINE_EXITED
        code = ended.get("exitCode")
        detail = f": {words[:300]}" if words else "."
        return known, f"The check's container ended with exit code {code} and no report{detail}"
    return termination.reason, termination.message


def _ended_condition(job: Object) -> Object | None:
    for condition in (job.get("status") or {}).get("conditions") or ():
        if condition.get("type") in ("Complete", "Failed") and condition.get("status") == "True":
            found: Object = condition
            return found
    return None


def _job_failure(over: Object, pod: Object | None) -> tuple[str, str]:
    if over.get("reason") == "DeadlineExceeded":
        return Reason.DEADLINE_EXCEEDED, "The check did not end within its deadline."
    finding = diagnose_pod(pod, None) if pod is not None else None
    if finding is not None and finding.severity is Severity.PROBLEM:
        return finding.reason, finding.message
    why = over.get("message") or over.get("reason") or "no message"
    return Reason.ENGINE_EXITED, f"The check's Job ended without a report: {why}."
