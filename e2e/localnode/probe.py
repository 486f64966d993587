"""What a container probe knows and concludes: the state machine behind startup, readiness and liveness. Pure.

It counts outcomes against the thresholds as the kubelet's prober does; `prober` performs the checks and owns
time.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class Verdict(enum.Enum):
    """What a probe says about its container."""

    UNKNOWN = "Unknown"
    SUCCESS = "Success"
    FAILURE = "Failure"


@dataclass(frozen=True, slots=True)
class ProbeTiming:
    """The times (seconds) and thresholds (outcomes in a row) of a probe, with the API's defaults."""

    initial_delay_seconds: float = 0
    period_seconds: float = 10
    timeout_seconds: float = 1
    success_threshold: int = 1
    failure_threshold: int = 3

    @classmethod
    def of(cls, probe: Mapping[str, Any]) -> ProbeTiming:
        """Read a probe as it is written in a pod."""
        return cls(
            initial_delay_seconds=probe.get("initialDelaySeconds") or 0,
            period_seconds=probe.get("periodSeconds") or 10,
            timeout_seconds=probe.get("timeoutSeconds") or 1,
            success_threshold=probe.get("successThreshold") or 1,
            failure_threshold=probe.get("failureThreshold") or 3,
        )


# Before the first outcome: not started, not ready, alive (Kubernetes documentation, "Pod lifecycle").
INITIAL = {"startup": Verdict.UNKNOWN, "readiness": Verdict.FAILURE, "liveness": Verdict.SUCCESS}


class ProbeState:
    """One probe of one run of a container."""

    def __init__(self, kind: str, timing: ProbeTiming) -> None:
        self.timing = timing
        self.verdict = INITIAL[kind]
        self._last: bool | None = None
        self._in_a_row = 0

    def observe(self, succeeded: bool) -> bool:
        """Count one outcome; True if the verdict changed by it."""
        self._in_a_row = self._in_a_row + 1 if succeeded == self._last else 1
        self._last = succeeded
        threshold = self.timing.success_threshold if succeeded else self.timing.failure_threshold
        if self._in_a_row < threshold:
            return False
        before, self.verdict = self.verdict, Verdict.SUCCESS if succeeded else Verdict.FAILURE
        return before is not self.verdict
