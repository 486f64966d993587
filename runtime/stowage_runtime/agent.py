"""One engine's life in one container: check, fetch, start, prove, watch, end.

The main thread does all of it, one step after the other, and never blocks where it could not hear a signal.
Whatever happens, the container ends with a documented reason, or with success when it was asked to stop, and
leaves no process behind.
"""

from __future__ import annotations

import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from stowage_runtime.agent_log import AgentLog
from stowage_runtime.contract import LaunchSpec, Termination
from stowage_runtime.drain import Drain
from stowage_runtime.engine_client import EngineClient, EngineRequestError
from stowage_runtime.engine_facts import facts_from_log, with_metrics
from stowage_runtime.engine_logs import EngineLog
from stowage_runtime.exit_causes import classify_exit, stage_of
from stowage_runtime.failures import AgentFailure, EngineEnded, StopRequested
from stowage_runtime.fetch import ModelFetch
from stowage_runtime.launch import base_environment, engine_command, engine_environment
from stowage_runtime.line_pump import LinePump, piped
from stowage_runtime.own_polls import own_poll_filter
from stowage_runtime.preflight import Preflight
from stowage_runtime.processes import Processes
from stowage_runtime.redaction import Redactor
from stowage_runtime.state import AgentState
from stowage_runtime.termination_log import TerminationLog
from stowage_runtime.utilization import UtilizationWindow

POLL_SECONDS = 5.0
_HEALTH_POLL_SECONDS = 1.0
_SELF_TEST_ATTEMPTS = 3
_SELF_TEST_SECONDS = 120.0
_FAILED_GRACE_SECONDS = 5.0
_LAST_WORDS_SECONDS = 5.0


@dataclass(frozen=True)
class Surroundings:
    """What the container gives to the agent."""

    environment: Mapping[str, str]
    host: str
    processes: Processes
    redact: Redactor
    log: AgentLog
    termination: TerminationLog


class Agent:
    """Runs one LaunchSpec to its end."""

    def __init__(self, spec: LaunchSpec, state: AgentState, around: Surroundings) -> None:
        self._spec = spec
        self._state = state
        self._around = around
        self._processes = around.processes
        self._deadline = time.monotonic() + spec.startup_timeout_seconds
        self._client = EngineClient(around.host, spec.port, around.environment.get("VLLM_API_KEY"))
        self._engine_log = EngineLog(spec.engine.version)
        self._window = UtilizationWindow()
        self._engine: subprocess.Popen[bytes] | None = None
        self._pump: LinePump | None = None
        self._kind: tuple[str | None, str | None] = (None, None)

    def run(self) -> int:
        """Live; returns the exit code of the container."""
        try:
            self.start()
            while True:
                self._watch_once()
        except StopRequested:
            self._processes.ignore_stop()
            self._around.log("asked to stop")
            self.end()
            return 0
        except EngineEnded as ended:
            return self._fail(self.explain(ended))
        except AgentFailure as failure:
            return self._fail(failure.termination)
        except Exception as error:
            self._around.log(traceback.format_exc())
            message = f"The agent itself failed: {type(error).__name__}: {error}"
            return self._fail(Termination(reason="EngineExited", message=message))
        finally:
            self._processes.end_all()

    @property
    def client(self) -> EngineClient:
        """Asks the engine of this agent."""
        return self._client

    @property
    def engine_kind(self) -> str:
        """What answers, once it has been started: ``vllm`` or ``simulated``."""
        return self._kind[0] or "vllm"

    def start(self) -> None:
        """Check, fetch, start and prove; raises AgentFailure, EngineEnded and StopRequested."""
        spec, around = self._spec, self._around
        env = base_environment(spec, around.environment)
        preflight = Preflight(self._processes, env)
        if spec.gpus is not None:
            preflight.check_gpus(spec.gpus)
        preflight.check_engine(spec.engine)
        self._state.enter("Fetching")
        fetch = ModelFetch(self._processes, env, around.log, around.redact, self._state.set_progress)
        path = fetch.fetch(spec.model, self._deadline)
        self._launch(path)
        self._wait_for_health()
        self._self_test()
        # Who is told that the engine serves may ask at once what it is.
        self._note_figures()
        self._state.enter("Serving")
        around.log("serving: the engine has answered the agent's own completion")

    def _launch(self, model_path: str) -> None:
        self._state.enter("Loading")
        command = engine_command(self._spec, model_path, self._around.host)
        self._around.log("starting " + " ".join(command))
        env = engine_environment(self._spec, self._around.environment)
        self._engine = self._processes.spawn(command, env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._processes.watch(self._engine)
        self._pump = LinePump(
            piped(self._engine.stdout),
            sys.stdout.buffer,
            self._around.redact,
            [self._engine_log.feed],
            own_poll_filter(self._around.host),
        )
        self._pump.start()

    def _wait_for_health(self) -> None:
        while not self._processes.call(self._client.healthy):
            self._note_figures()
            self._check_budget("was loading")
            self._processes.pause(_HEALTH_POLL_SECONDS)
        self._state.set_healthy()
        self._state.enter("Warming")
        self._kind = self._processes.call(self._ask_kind)

    def _ask_kind(self) -> tuple[str | None, str | None]:
        try:
            return self._client.kind_and_version()
        except EngineRequestError as error:
            self._around.log(str(error))
            return "vllm", self._spec.engine.version

    def _self_test(self) -> None:
        """Ask for one completion: only then may traffic come. Server errors may heal, a refusal does not."""
        model = self._spec.served_model_name
        for attempt in range(1, _SELF_TEST_ATTEMPTS + 1):
            self._check_budget("was answering the agent's own completion")
            timeout = min(_SELF_TEST_SECONDS, max(1.0, self._deadline - time.monotonic()))
            try:
                self._processes.call(partial(self._client.complete, model, timeout))
                return
            except EngineRequestError as error:
                refused = error.status is not None and 200 <= error.status < 500
                if refused or attempt == _SELF_TEST_ATTEMPTS:
                    message = f"The engine is healthy but the agent's own completion failed: {error}."
                    raise AgentFailure("SelfTestFailed", message) from None
                self._around.log(f"{error}; asking again")
            self._processes.pause(_HEALTH_POLL_SECONDS)

    def _watch_once(self) -> None:
        """Read the engine's figures once, then wait for the next time."""
        self._note_figures()
        if self._processes.call(self._client.healthy):
            self._state.set_healthy()
        self._processes.pause(POLL_SECONDS)

    def _note_figures(self) -> None:
        facts = facts_from_log(self._engine_log.figures(), self._engine_log.lines_seen())
        if self._state.phase == "Loading" and "kv_tokens" in facts.log_lines_seen:
            self._state.enter("Warming")
        if self._kind[0] is not None:
            try:
                exposition = self._processes.call(self._client.metrics)
            except EngineRequestError as error:
                self._around.log(str(error))
                return
            facts = with_metrics(facts, exposition)
            self._state.set_utilization(self._window.add(exposition, time.monotonic()))
        kind, version = self._kind
        self._state.set_engine(replace(facts, kind=kind, version=version))

    def _check_budget(self, doing: str) -> None:
        if time.monotonic() <= self._deadline:
            return
        last = next((line for line in reversed(self._last_lines()) if line.strip()), "")
        budget = self._spec.startup_timeout_seconds
        message = f"The start-up budget of {budget} s ended while vLLM {doing}"
        message += f"; its last line: {last[:300]}" if last else " and had not said anything."
        raise AgentFailure("StartupTimeout", message, {"budgetSeconds": budget})

    def _last_lines(self) -> list[str]:
        return self._pump.last_lines() if self._pump is not None else []

    def explain(self, ended: EngineEnded) -> Termination:
        """Say why the engine has ended by itself, from its last lines."""
        if self._pump is not None:
            # A child of the engine may hold its output open: end the session first, then read to the end.
            if self._engine is not None:
                self._processes.kill(self._engine)
            self._pump.finish(_LAST_WORDS_SECONDS)
        stage = stage_of(self._engine_log.lines_seen(), self._state.was_serving)
        return classify_exit(self._last_lines(), ended.returncode, self._spec.engine.version, stage)

    def end(self) -> None:
        """Drain the engine and end it within the drain time-out; what is left of it is killed."""
        self._processes.watch(None)
        serving = self._state.was_serving
        self._state.enter("Draining")
        if self._engine is not None:
            drain = Drain(self._processes, self._client, self._around.log)
            drain.end(self._engine, self._spec.drain_timeout_seconds, serving)
            if self._pump is not None:
                self._pump.finish(_LAST_WORDS_SECONDS)

    def _fail(self, termination: Termination) -> int:
        self._processes.ignore_stop()
        self._processes.watch(None)
        written = self._around.termination.write(termination)
        self._state.fail(written.reason, written.message)
        if self._engine is not None and self._engine.poll() is None:
            self._processes.terminate(self._engine, _FAILED_GRACE_SECONDS)
        return 1
