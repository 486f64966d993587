"""What a Deployment's own conditions say: pods that may not be created, and rollouts that are stuck."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stowage.api.conditions import Reason
from stowage.diagnosis.finding import Finding, Severity


def diagnose_deployment(deployment: Mapping[str, Any]) -> Finding | None:
    """Find why the Deployment cannot make its pods, if that is so."""
    conditions = {item["type"]: item for item in (deployment.get("status") or {}).get("conditions") or ()}
    failure = conditions.get("ReplicaFailure")
    if failure is not None and failure["status"] == "True":
        words = failure.get("message") or "no message"
        reason = Reason.QUOTA_EXCEEDED if "exceeded quota" in words else Reason.PODS_REFUSED
        return Finding(Severity.PROBLEM, reason, f"Pods cannot be created: {words}")
    progressing = conditions.get("Progressing")
    if progressing is not None and progressing.get("reason") == "ProgressDeadlineExceeded":
        words = progressing.get("message") or "no message"
        return Finding(Severity.PROBLEM, Reason.DEADLINE_EXCEEDED, f"The rollout is stuck: {words}")
    return None
