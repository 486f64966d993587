"""What the agent answers to the kubelet and to the operator.

Startup follows the agent's own completion, readiness also the engine's health of the last moments, liveness
only whether anything still moves: a slow start is never killed by the liveness probe.
"""

from __future__ import annotations

from stowage_runtime.processes import Processes
from stowage_runtime.server import Answer, Routes
from stowage_runtime.state import AgentState

STUCK_AGENT_SECONDS = 60.0
STUCK_ENGINE_SECONDS = 300.0


def run_routes(state: AgentState, processes: Processes) -> Routes:
    """Return the routes of ``run``."""
    return {
        "/livez": lambda: _live(state, processes),
        "/startupz": lambda: _verdict(state.was_serving, state.phase),
        "/readyz": lambda: _verdict(state.ready, state.phase),
        "/report": lambda: Answer(200, state.report().to_json() + "\n", "application/json"),
    }


def _verdict(good: bool, phase: str) -> Answer:
    return Answer(200 if good else 503, f"{phase}\n")


def _live(state: AgentState, processes: Processes) -> Answer:
    if processes.heartbeat_age_seconds > STUCK_AGENT_SECONDS:
        return Answer(503, "the agent is stuck\n")
    since = state.seconds_since_healthy
    if state.phase == "Serving" and since is not None and since > STUCK_ENGINE_SECONDS:
        return Answer(503, f"the engine has not been well for {since:.0f} s\n")
    return _verdict(True, state.phase)
