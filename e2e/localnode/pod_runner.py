"""Run one pod that is bound to a local node, from the first look at it until its object is gone.

It owns the pod's address, directory, containers and status. Whatever happens to the API server meanwhile, it
ends with no process left. It must never touch a pod whose uid is not the one it was made for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import aiohttp

from e2e.localnode.api_client import ApiError
from e2e.localnode.container_runner import ContainerRunner, Surroundings
from e2e.localnode.context import NodeContext
from e2e.localnode.environment import MissingReference
from e2e.localnode.inventory import NodeManifest
from e2e.localnode.logs import ContainerLogs
from e2e.localnode.pod_setup import PodSetup
from e2e.localnode.publisher import StatusPublisher
from e2e.localnode.recorder import Recorder
from e2e.localnode.resume import resumed_state
from e2e.localnode.status import PodState, phase, pod_status
from e2e.localnode.suitability import refusal
from e2e.localnode.volumes import UnsupportedVolume

UNSUPPORTED = "UnsupportedByLocalNode"
_LOG = logging.getLogger(__name__)
_VOLUME_RETRY_SECONDS = 1.0
_UNWIND_SECONDS = 2.0
_DEFAULT_GRACE_SECONDS = 30


class PodRunner:
    """One pod. `observe` is told every version of its object; `run` ends when the object may be forgotten."""

    def __init__(self, context: NodeContext, node: NodeManifest, pod: Mapping[str, Any]) -> None:
        self.uid: str = pod["metadata"]["uid"]
        self._context = context
        self._pod = pod
        self._spec = pod["spec"]
        self._setup = PodSetup(context, node, pod)
        self._recorder = Recorder(context.api, pod)
        self._refusal = refusal(pod, node, context)
        self._state: PodState = resumed_state(pod, context, datetime.now(UTC))
        self._runners: dict[str, ContainerRunner] = {}
        self._stopping = asyncio.Event()
        self._gone = asyncio.Event()
        metadata = pod["metadata"]
        self._publisher = StatusPublisher(
            context.api, metadata["namespace"], metadata["name"], self.uid, self._status
        )
        if metadata.get("deletionTimestamp"):
            self._stopping.set()

    @property
    def state(self) -> PodState:
        """What is known of the pod now."""
        return self._state

    def observe(self, pod: Mapping[str, Any]) -> None:
        """Take note of a newer version of the object: conditions of others, or its deletion."""
        self._pod = pod
        if pod["metadata"].get("deletionTimestamp"):
            self._stopping.set()
        self._publisher.touch()

    def vanish(self) -> None:
        """Take note that the object is gone: everything ends at once."""
        self._gone.set()
        self._stopping.set()
        for runner in self._runners.values():
            runner.kill()

    def logs(self, container: str) -> tuple[ContainerLogs, int, bool]:
        """Return a container's logs, its run and whether that is going on; raises `KeyError`."""
        states = {entry.name: entry for entry in (*self._state.init_containers, *self._state.containers)}
        state = states[container]
        runner = self._runners.get(container)
        return (
            ContainerLogs(self._setup.directory, container),
            state.restart_count,
            bool(runner and runner.running),
        )

    async def run(self) -> None:
        """Run the pod to its end and confirm its deletion; returns when it may be forgotten."""
        publishing = asyncio.create_task(self._publisher.run())
        try:
            await self._live()
            self._publisher.touch()
            await self._stopping.wait()
            publishing.cancel()
            await self._recorder.flush()
            if not self._gone.is_set():
                await self._confirm_deletion()
        finally:
            publishing.cancel()
            self.kill()
            self._release()

    def kill(self) -> None:
        """End all processes at once."""
        for runner in self._runners.values():
            runner.kill()

    async def _live(self) -> None:
        finished = phase(self._state, terminating=False) in ("Succeeded", "Failed")
        if self._stopping.is_set() or finished:
            return
        if self._refusal:
            self._fail(UNSUPPORTED, self._refusal)
            return
        self._publisher.touch()
        work = asyncio.create_task(self._work())
        deadline = asyncio.create_task(self._deadline())
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({work, deadline, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                await self._stop_containers()
                await asyncio.wait({work}, timeout=_UNWIND_SECONDS)
            if work.done():
                work.result()
        finally:
            for task in (work, deadline, stopped):
                task.cancel()
            await asyncio.gather(work, deadline, stopped, return_exceptions=True)

    async def _work(self) -> None:
        try:
            if not await self._prepare():
                return
            for entry in self._spec.get("initContainers") or []:
                await self._run_container(entry, is_init=True)
                if self._ending or not self._succeeded(entry["name"]):
                    return
            for state in self._state.containers:
                state.waiting = state.waiting and ("ContainerCreating", "")
            await asyncio.gather(
                *(self._run_container(entry, is_init=False) for entry in self._spec["containers"])
            )
        except UnsupportedVolume as error:
            self._fail(UNSUPPORTED, str(error))

    @property
    def _ending(self) -> bool:
        return self._stopping.is_set() or self._state.failure is not None

    async def _prepare(self) -> bool:
        if not self._state.address:
            self._state.address = self._context.addresses.take()
        while not self._ending:
            try:
                await self._setup.materialise(self._state.address)
            except (MissingReference, ApiError, aiohttp.ClientError, TimeoutError) as error:
                self._recorder.report("Warning", "FailedMount", f"MountVolume.SetUp failed: {error}")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), _VOLUME_RETRY_SECONDS)
            else:
                self._state.volumes_ready = True
                self._publisher.touch()
                return True
        return False

    async def _run_container(self, container: Mapping[str, Any], *, is_init: bool) -> None:
        states = self._state.init_containers if is_init else self._state.containers
        state = next(entry for entry in states if entry.name == container["name"])
        if state.terminated:  # it ended for good before the node was restarted
            return
        around = Surroundings(
            pod_uid=self.uid,
            address=self._state.address,
            restart_policy=self._policy(is_init=is_init),
            grace_seconds=self._grace_seconds(),
            back_off_seconds=self._context.back_off_seconds,
            http=self._context.http,
            records=self._context.records,
            termination_log=self._setup.termination_log(container),
            prepare=self._launch,
            changed=self._publisher.touch,
            report=self._recorder.report,
        )
        logs = ContainerLogs(self._setup.directory, container["name"])
        runner = ContainerRunner(container, state, logs, around, is_init=is_init)
        self._runners[container["name"]] = runner
        if not self._ending:
            await runner.run()

    async def _launch(self, container: Mapping[str, Any]) -> dict[str, Any]:
        while True:
            try:
                return await self._setup.launch(container, self._state.address)
            except (
                ApiError,
                aiohttp.ClientError,
                TimeoutError,
            ) as error:  # the API server is away: wait for it
                _LOG.debug("preparing %s: %s", container["name"], error)
                await asyncio.sleep(_VOLUME_RETRY_SECONDS)

    def _policy(self, *, is_init: bool) -> str:
        policy: str = self._spec.get("restartPolicy") or "Always"
        return "OnFailure" if is_init and policy == "Always" else policy

    def _succeeded(self, name: str) -> bool:
        run = next(entry for entry in self._state.init_containers if entry.name == name).terminated
        return run is not None and run.exit_code == 0

    def _grace_seconds(self) -> float:
        asked = self._pod["metadata"].get("deletionGracePeriodSeconds")
        planned = self._spec.get("terminationGracePeriodSeconds")
        return next((float(value) for value in (asked, planned) if value is not None), _DEFAULT_GRACE_SECONDS)

    async def _deadline(self) -> None:
        seconds = self._spec.get("activeDeadlineSeconds")
        if seconds is None:
            await asyncio.Event().wait()
        spent = (datetime.now(UTC) - self._state.start_time).total_seconds()
        await asyncio.sleep(seconds - spent)
        self._fail("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")

    def _fail(self, reason: str, message: str) -> None:
        self._state.failure = (reason, message)
        for entry in (*self._state.init_containers, *self._state.containers):
            entry.waiting = entry.waiting and (reason, message)
        self._recorder.report("Warning", reason, message)
        self._publisher.touch()

    async def _stop_containers(self) -> None:
        for runner in self._runners.values():
            if runner.running:
                self._recorder.report("Normal", "Killing", f"Stopping container {runner.state.name}")
        grace = self._grace_seconds()
        await asyncio.gather(*(runner.stop(grace) for runner in self._runners.values()))

    def _status(self) -> dict[str, Any]:
        return pod_status(self._state, self._pod, datetime.now(UTC))

    async def _confirm_deletion(self) -> None:
        """Write the last status, then delete the object for good; repeated until the server has done it."""
        metadata = self._pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}}
        while not self._gone.is_set():
            try:
                with contextlib.suppress(ApiError):
                    await self._publisher.write()
                await self._context.api.delete(path, options)
            except ApiError as error:
                if error.code == 404 or "UID" in str(error):  # it is gone, or another one has its name now
                    return
                _LOG.warning("deletion of %s: %s", path, error)
            except (aiohttp.ClientError, OSError, TimeoutError):
                pass
            else:
                return
            await asyncio.sleep(_VOLUME_RETRY_SECONDS)

    def _release(self) -> None:
        if self._state.address:
            self._context.addresses.give_back(self._state.address)
        self._setup.remove()
        shutil.rmtree(self._setup.directory, ignore_errors=True)
