"""What was found about one pod or about the Deployment."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from stowage.api.conditions import Reason


class Severity(IntEnum):
    """How bad a finding is; the worst one becomes the reason that people see."""

    READY = 0
    PROGRESS = 1
    PROBLEM = 2


@dataclass(frozen=True, slots=True)
class Finding:
    """One observation: its severity, a documented reason, a sentence, and the pod it is about."""

    severity: Severity
    reason: Reason
    message: str
    pod: str = ""
    retries: int = 0


def worst(findings: tuple[Finding, ...]) -> Finding | None:
    """The finding that people should see first: the most severe, then the most retried, then the first pod."""
    return min(findings, key=lambda item: (-item.severity, -item.retries, item.pod), default=None)
