"""Run one container of a pod to its end: start, probe, restart, stop, as the kubelet would.

All waiting is interruptible by `stop`. It changes only its own `ContainerState` and says so through
`changed`; it must never leave its process running when it returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from e2e.localnode.container_root import ConfigError
from e2e.localnode.context import new_container_id
from e2e.localnode.environment import MissingReference
from e2e.localnode.images import ImageError
from e2e.localnode.logs import ContainerLogs, termination_message
from e2e.localnode.probe import ProbeState, ProbeTiming, Verdict
from e2e.localnode.prober import Target, check
from e2e.localnode.processes import ContainerProcess, StartError, start_process
from e2e.localnode.restart import BackOff, restarts
from e2e.localnode.root_plan import MountPlanError
from e2e.localnode.status import ContainerState, Termination

_LOG = logging.getLogger(__name__)
_CONFIG_RETRY_SECONDS = 1.0
_LEAST_GRACE_SECONDS = 2.0  # what a container gets after a preStop hook that used up the grace period
_START_FAILED = 128


class UnknownImage(Exception):
    """The image is not on the allow-list: it cannot be pulled here."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a container runner needs from its pod.

    `prepare` makes the launcher's specification anew for every run; `changed` asks for the pod's status to be
    written; `report` records an event (type, reason, message).
    """

    pod_uid: str
    address: str
    restart_policy: str
    grace_seconds: float
    back_off_seconds: float
    http: aiohttp.ClientSession
    records: Path
    termination_log: Path
    prepare: Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]
    changed: Callable[[], None]
    report: Callable[[str, str, str], None]


class ContainerRunner:
    """One container. `run` returns when it has ended for good, or after `stop`."""

    def __init__(
        self,
        container: Mapping[str, Any],
        state: ContainerState,
        logs: ContainerLogs,
        around: Surroundings,
        *,
        is_init: bool,
    ) -> None:
        self.state = state
        self.logs = logs
        self._container = container
        self._around = around
        self._is_init = is_init
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._started = asyncio.Event()
        self._target: Target | None = None
        self._probes: dict[str, asyncio.Task[None]] = {}
        self._termination: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether its process runs now."""
        return self._target is not None

    async def run(self) -> None:
        """Run the container, again and again as its pod's restart policy says."""
        back_off = BackOff(self._around.back_off_seconds)
        while not self._stopping.is_set():
            spec = await self._prepared()
            if spec is None:
                return
            run = await self._run_once(spec)
            if self._stopping.is_set():
                return
            if not restarts(self._around.restart_policy, run.exit_code, is_init=self._is_init):
                return
            delay = back_off.delay_seconds((run.finished_at - run.started_at).total_seconds())
            if delay:
                await self._crash_loop(delay)
            self.state.restart_count += 1

    async def stop(self, grace_seconds: float) -> None:
        """End the container for good: preStop hook, SIGTERM, SIGKILL when the grace period is over."""
        self._stopping.set()
        for kind in ("startup", "liveness"):
            if kind in self._probes:
                self._probes[kind].cancel()
        if self._target is not None:
            await self._terminate(self._target, grace_seconds)

    def kill(self) -> None:
        """End the container at once and never run it again."""
        self._stopping.set()
        if self._target is not None:
            self._target.process.kill()

    async def _prepared(self) -> dict[str, Any] | None:
        """Return what to launch; waits, with the reason in the status, for as long as that is not known."""
        while not self._stopping.is_set():
            try:
                return await self._around.prepare(self._container)
            except UnknownImage as error:
                await self._image_missing(str(error))
            except (MissingReference, ConfigError, MountPlanError, ImageError, ValueError, OSError) as error:
                self._wait("CreateContainerConfigError", str(error))
                await self._pause(_CONFIG_RETRY_SECONDS)
        return None

    async def _image_missing(self, message: str) -> None:
        self._wait("ErrImagePull", message)
        self._around.report("Warning", "Failed", f"Failed to pull image: {message}")
        if not await self._pause(self._around.back_off_seconds):
            image = self._container["image"]
            self._wait("ImagePullBackOff", f'Back-off pulling image "{image}": {message}')
            await self._stopping.wait()

    async def _crash_loop(self, delay_seconds: float) -> None:
        text = f"back-off {delay_seconds:g}s restarting failed container={self.state.name}"
        self._wait("CrashLoopBackOff", text)
        self._around.report("Warning", "BackOff", f"{text} in pod {self._around.pod_uid}")
        await self._pause(delay_seconds)

    def _wait(self, reason: str, message: str) -> None:
        state = self.state
        if state.terminated:
            state.last_terminated, state.terminated = state.terminated, None
        if state.waiting != (reason, message):
            state.waiting = (reason, message)
            self._around.changed()

    async def _pause(self, seconds: float) -> bool:
        """Wait; True if stopped meanwhile."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        return self._stopping.is_set()

    async def _run_once(self, spec: dict[str, Any]) -> Termination:
        state, started_at = self.state, datetime.now(UTC)
        state.container_id = new_container_id(self._around.pod_uid, state.name)
        self._around.termination_log.write_bytes(b"")
        log = self.logs.file(state.restart_count)
        try:
            process = await start_process(spec, log, self._around.records)
        except StartError as error:
            return self._record(started_at, _START_FAILED, "StartError", str(error))
        self._begin(process, spec, started_at)
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            process.kill()
            await process.supervisor.wait()
            raise
        finally:
            await self._finish()
        policy = self._container.get("terminationMessagePolicy") or "File"
        message = termination_message(self._around.termination_log, policy, log, code)
        return self._record(started_at, code, "Completed" if code == 0 else "Error", message)

    def _begin(self, process: ContainerProcess, spec: dict[str, Any], started_at: datetime) -> None:
        state, around = self.state, self._around
        if state.terminated:
            state.last_terminated, state.terminated = state.terminated, None
        state.waiting, state.running_since = None, started_at
        state.started = not self._container.get("startupProbe")
        state.ready = state.started and not self._is_init and not self._container.get("readinessProbe")
        self._ended.clear()
        self._started.clear()
        if state.started:
            self._started.set()
        self._target = Target(around.http, around.address, self._container, process, spec)
        for kind in ("startup", "readiness", "liveness"):
            if self._container.get(f"{kind}Probe"):
                self._probes[kind] = asyncio.create_task(self._probe(kind, self._target))
        around.report("Normal", "Started", f"Container {state.name} started")
        around.changed()
        if self._stopping.is_set():  # stop() came while the process was being started
            process.kill()

    async def _finish(self) -> None:
        self._target = None
        self._ended.set()
        tasks = [*self._probes.values(), *([self._termination] if self._termination else [])]
        self._probes.clear()
        self._termination = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _record(self, started_at: datetime, code: int, reason: str, message: str) -> Termination:
        state = self.state
        run = Termination(code, reason, started_at, datetime.now(UTC), message, state.container_id)
        if state.terminated:
            state.last_terminated = state.terminated
        state.waiting, state.running_since, state.terminated = None, None, run
        state.ready = self._is_init and code == 0
        state.started = False
        self._around.changed()
        return run

    async def _probe(self, kind: str, target: Target) -> None:
        probe = self._container[f"{kind}Probe"]
        state = ProbeState(kind, ProbeTiming.of(probe))
        await asyncio.sleep(state.timing.initial_delay_seconds)
        if kind != "startup":
            await self._started.wait()
        while True:
            problem = await check(probe, target, state.timing.timeout_seconds)
            if problem:
                text = f"{kind.capitalize()} probe failed: {problem}"
                self._around.report("Warning", "Unhealthy", text)
            if state.observe(not problem) and self._conclude(kind, state.verdict, target):
                return
            await asyncio.sleep(state.timing.period_seconds)

    def _conclude(self, kind: str, verdict: Verdict, target: Target) -> bool:
        """Act on a new verdict; True if this probe has done its work."""
        if kind == "readiness":
            self.state.ready = verdict is Verdict.SUCCESS
        elif verdict is Verdict.FAILURE:
            text = f"Container {self.state.name} failed {kind} probe, will be restarted"
            self._around.report("Normal", "Killing", text)
            own = self._container[f"{kind}Probe"].get("terminationGracePeriodSeconds")
            grace = self._around.grace_seconds if own is None else own
            self._termination = asyncio.create_task(self._terminate(target, grace))
            return True
        elif kind == "startup":
            self.state.started = True
            self._started.set()
            self.state.ready = not self._container.get("readinessProbe")
        self._around.changed()
        return kind == "startup"

    async def _terminate(self, target: Target, grace_seconds: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_seconds
        hook = (self._container.get("lifecycle") or {}).get("preStop")
        if hook and grace_seconds > 0:
            await self._pre_stop(hook, target, grace_seconds)
            deadline = max(deadline, loop.time() + _LEAST_GRACE_SECONDS)
        if grace_seconds > 0:
            target.process.signal(signal.SIGTERM)
            await self._wait_ended(deadline - loop.time())
        target.process.kill()
        await self._ended.wait()

    async def _pre_stop(self, hook: Mapping[str, Any], target: Target, grace_seconds: float) -> None:
        if "sleep" in hook:
            await self._wait_ended(min(grace_seconds, hook["sleep"]["seconds"]))
            return
        problem = await check(hook, target, grace_seconds)
        if problem:
            self._around.report("Warning", "FailedPreStopHook", f"PreStopHook failed: {problem}")

    async def _wait_ended(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), seconds)
