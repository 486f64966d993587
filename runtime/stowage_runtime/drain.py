"""Ends the engine so that running requests finish where there is time for it.

vLLM drops running requests on SIGTERM, or with a shutdown timeout of its own drops them at its end and then
waits for their connections. So the agent itself waits until none is left (the pod has been taken out of its
Service before) and only then sends SIGTERM. The budget is never exceeded: what is still there at its end is
killed as a whole.
"""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass

from stowage_runtime.agent_log import AgentLog
from stowage_runtime.engine_client import EngineClient, EngineRequestError
from stowage_runtime.processes import Processes

_POLL_SECONDS = 0.5
_IDLE_POLLS = 2
_LONGEST_EXIT_SECONDS = 10.0


@dataclass(frozen=True)
class Drain:
    """How to end one engine."""

    processes: Processes
    client: EngineClient
    log: AgentLog

    def end(self, engine: subprocess.Popen[bytes], budget_seconds: float, serving: bool) -> None:
        """Drain and end the engine within the budget."""
        deadline = time.monotonic() + budget_seconds
        if serving:
            # The exit itself takes seconds, which must be left of the budget.
            self._wait_until_idle(engine, deadline - min(_LONGEST_EXIT_SECONDS, budget_seconds / 2))
        if engine.poll() is None:
            self.log("sending SIGTERM to vLLM")
        gone = self.processes.terminate(engine, deadline - time.monotonic())
        self.log(
            "vLLM has ended" if gone else f"vLLM was killed: it did not end within {budget_seconds:.0f} s"
        )

    def _wait_until_idle(self, engine: subprocess.Popen[bytes], deadline: float) -> None:
        idle_polls = 0
        while engine.poll() is None and time.monotonic() < deadline and idle_polls < _IDLE_POLLS:
            in_flight = self.processes.call(self._in_flight)
            if in_flight is None:
                return
            idle_polls = idle_polls + 1 if in_flight == 0 else 0
            self.processes.pause(_POLL_SECONDS)

    def _in_flight(self) -> float | None:
        try:
            exposition = self.client.metrics()
        except EngineRequestError:
            return None
        running = exposition.total("vllm:num_requests_running")
        waiting = exposition.total("vllm:num_requests_waiting")
        return None if running is None else running + (waiting or 0.0)
