"""What the agent knows at this moment: the one place that its threads share.

The main thread writes, the report server reads. Every change is made under one lock, so that a report never
mixes two moments. Nothing here waits, and nothing here talks to the engine.
"""

from __future__ import annotations

import threading
import time
from datetime import datetime, timezone

from stowage_runtime.contract import EngineFacts, Failure, Progress, RuntimeReport, Utilization

HEALTH_FRESH_SECONDS = 30.0


def now_rfc3339() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


class AgentState:
    """Phase, progress, figures and health of one agent."""

    def __init__(self, launch_hash: str) -> None:
        self._lock = threading.Lock()
        self._launch_hash = launch_hash
        self._started_at = now_rfc3339()
        self._phase = "Preflight"
        self._phase_since = self._started_at
        self._progress = Progress()
        self._engine = EngineFacts()
        self._utilization: Utilization | None = None
        self._failure: Failure | None = None
        self._healthy_at: float | None = None
        self._was_serving = False

    @property
    def phase(self) -> str:
        """The phase that the agent is in."""
        return self._phase

    @property
    def was_serving(self) -> bool:
        """True from the agent's own completion on, also while draining."""
        return self._was_serving

    @property
    def seconds_since_healthy(self) -> float | None:
        """Seconds since the engine last said that it is well; None before it ever did."""
        healthy_at = self._healthy_at
        return None if healthy_at is None else time.monotonic() - healthy_at

    @property
    def ready(self) -> bool:
        """True when requests may be sent: serving, and the engine was well moments ago."""
        since = self.seconds_since_healthy
        return self._phase == "Serving" and since is not None and since < HEALTH_FRESH_SECONDS

    def enter(self, phase: str) -> None:
        """Change the phase; entering the current one changes nothing."""
        with self._lock:
            if phase != self._phase:
                self._phase, self._phase_since = phase, now_rfc3339()
                self._was_serving = self._was_serving or phase == "Serving"

    def set_progress(self, progress: Progress) -> None:
        """Note how far the download is."""
        with self._lock:
            self._progress = progress

    def set_engine(self, engine: EngineFacts) -> None:
        """Note the engine's own figures."""
        with self._lock:
            self._engine = engine

    def set_utilization(self, utilization: Utilization | None) -> None:
        """Note what the engine does."""
        with self._lock:
            self._utilization = utilization

    def set_healthy(self) -> None:
        """Note that the engine just said that it is well."""
        self._healthy_at = time.monotonic()

    def fail(self, reason: str, message: str) -> None:
        """Note why the agent gives up."""
        self.enter("Failed")
        with self._lock:
            self._failure = Failure(reason=reason, message=message)

    def report(self) -> RuntimeReport:
        """Return everything as of now."""
        with self._lock:
            return RuntimeReport(
                phase=self._phase,
                phase_since=self._phase_since,
                started_at=self._started_at,
                launch_hash=self._launch_hash,
                progress=self._progress,
                engine=self._engine,
                utilization=self._utilization,
                failure=self._failure,
            )
