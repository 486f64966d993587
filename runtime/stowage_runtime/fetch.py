"""Brings the model into the container: watches the download, retries what can heal, else says why.

The download runs in a child with the image's own Hub library. Progress is what lies on disk, so it is right
for every transport. Rate limits and server errors are retried with growing, jittered waits until the start-up
budget ends; an unreachable Hub for a short while only, since a wrong address does not heal.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from stowage_runtime.agent_log import AgentLog
from stowage_runtime.contract import ModelRef, Progress
from stowage_runtime.failures import AgentFailure
from stowage_runtime.fetch_child import bytes_in
from stowage_runtime.hub_errors import HubProblem
from stowage_runtime.line_pump import LinePump, piped
from stowage_runtime.processes import Processes, own_command
from stowage_runtime.redaction import Redactor
from stowage_runtime.retry_times import RetryTimes

_PROGRESS_SECONDS = 1.0
_OTHER_ATTEMPTS = 2
_GIB = 1024**3
_RETRIED = re.compile(r"HTTP Error (?:429|5\d\d)\b")


@dataclass
class Attempt:
    """What one child has said so far."""

    total_bytes: int | None = None
    blobs: str | None = None
    path: str | None = None
    problem: HubProblem | None = None
    complaint: str | None = None

    def overhear(self, line: str) -> None:
        """Keep what the Hub library says about answers that it retries by itself, for minutes where asked to."""
        if _RETRIED.search(line):
            self.complaint = line.strip()

    def take(self, line: str) -> None:
        """Read an event of the child; other lines are of no interest."""
        try:
            event = json.loads(line)
        except ValueError:
            return
        kind = event.get("event") if isinstance(event, dict) else None
        if kind == "files":
            self.total_bytes, self.blobs = event["totalBytes"], event["blobs"]
        elif kind == "done":
            self.path = event["path"]
        elif kind == "problem":
            self.problem = HubProblem(**{key: value for key, value in event.items() if key != "event"})


class ModelFetch:
    """Fetches one model before a deadline, given as monotonic seconds."""

    def __init__(
        self,
        processes: Processes,
        env: Mapping[str, str],
        log: AgentLog,
        redact: Redactor,
        on_progress: Callable[[Progress], None],
        *,
        times: RetryTimes | None = None,
    ) -> None:
        self._processes = processes
        self._env = {
            key: value for key, value in env.items() if key not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
        }
        self._env.update(HF_HUB_DISABLE_PROGRESS_BARS="1", HF_HUB_DISABLE_TELEMETRY="1")
        self._log = log
        self._redact = redact
        self._on_progress = on_progress
        self._times = times or RetryTimes()

    def fetch(self, model: ModelRef, deadline: float) -> str:
        """Return the folder with the model; raises AgentFailure with the reason when there is none."""
        if model.kind == "pvc":
            return _volume_folder(model)
        repo_id, revision = model.repo_id or "", model.revision or ""
        marker = _marker_path(self._env, repo_id, revision)
        path = _finished_before(marker)
        if path is None:
            path = self._fetch_with_retries(repo_id, revision, deadline)
            _write_marker(marker, path)
        return path

    def _fetch_with_retries(self, repo_id: str, revision: str, deadline: float) -> str:
        attempts = 0
        unreachable_since: float | None = None
        while True:
            result = self._attempt(repo_id, revision, deadline)
            if result.path is not None:
                return result.path
            problem = result.problem or _silent(repo_id)
            attempts += 1
            now = time.monotonic()
            if problem.reason != "HubUnreachable":
                unreachable_since = None
            elif unreachable_since is None:
                unreachable_since = now
            wait = self._times.wait(attempts - 1, problem.retry_after_seconds, random.random())  # noqa: S311
            limit = (
                deadline
                if unreachable_since is None
                else min(deadline, unreachable_since + self._times.unreachable)
            )
            if not _worth_retrying(problem, attempts) or now + wait > limit:
                tried = f" Tried {attempts} times." if attempts > 1 else ""
                raise AgentFailure(problem.reason, problem.message + tried)
            self._log(f"{problem.message} Next attempt in {wait:.0f} s.")
            self._note(f"{problem.message} Attempt {attempts + 1} follows.", result)
            self._wait_until(now + wait)

    def _wait_until(self, moment: float) -> None:
        while (left := moment - time.monotonic()) > 0:
            self._processes.pause(left)

    def _attempt(self, repo_id: str, revision: str, deadline: float) -> Attempt:
        state = Attempt()
        command = own_command("_fetch", "--repo", repo_id, "--revision", revision)
        child = self._processes.spawn(command, self._env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        pumps = [
            LinePump(piped(child.stdout), None, self._redact, [state.take]),
            LinePump(piped(child.stderr), sys.stderr.buffer, self._redact, [state.overhear]),
        ]
        for pump in pumps:
            pump.start()
        try:
            while child.poll() is None:
                self._note(state.complaint, state)
                if time.monotonic() > deadline:
                    raise out_of_time(repo_id, state)
                self._processes.pause(_PROGRESS_SECONDS)
        finally:
            self._processes.kill(child)
            for pump in pumps:
                pump.finish(5.0)
        self._note(None, state)
        return state

    def _note(self, note: str | None, state: Attempt) -> None:
        fetched = bytes_in(state.blobs) if state.blobs else 0
        self._on_progress(
            Progress(
                fetched_bytes=fetched, total_bytes=state.total_bytes, note=note and self._redact(note)[:1024]
            )
        )


def _silent(repo_id: str) -> HubProblem:
    return HubProblem("ModelFetchFailed", f"The download of {repo_id} ended without saying why.")


def _worth_retrying(problem: HubProblem, attempts: int) -> bool:
    if problem.reason == "ModelFetchFailed":
        return attempts < _OTHER_ATTEMPTS
    return problem.retryable


def out_of_time(repo_id: str, state: Attempt) -> AgentFailure:
    """Say how far a download came when the start-up budget ended, and whether the Hub had held it up."""
    fetched = bytes_in(state.blobs) / _GIB if state.blobs else 0.0
    total = f" of {state.total_bytes / _GIB:.2f} GiB" if state.total_bytes is not None else " GiB"
    complaint = f" The Hub's last answer: {state.complaint[:300]}." if state.complaint else ""
    message = (
        f"The start-up budget ended while fetching {repo_id}: {fetched:.2f}{total} were there.{complaint}"
    )
    return AgentFailure("HubRateLimited" if state.complaint else "StartupTimeout", message)


def _volume_folder(model: ModelRef) -> str:
    path = model.path or ""
    if not os.path.isdir(path):
        raise AgentFailure("ModelNotFound", f"There is no folder {path} on the mounted volume.")
    if not os.path.isfile(os.path.join(path, "config.json")):
        raise AgentFailure(
            "ModelNotFound", f"{path} has no config.json: point spec.model.source at the model's folder."
        )
    return path


def _marker_path(env: Mapping[str, str], repo_id: str, revision: str) -> str:
    home = env.get("HF_HOME") or os.path.join(os.path.expanduser("~"), ".cache", "huggingface")
    name = hashlib.sha256(f"{repo_id}@{revision}".encode()).hexdigest()[:16]
    return os.path.join(home, "stowage", f"{name}.json")


def _finished_before(marker: str) -> str | None:
    """Find what an earlier container of this pod fetched in full, so that a restart needs no Hub."""
    try:
        with open(marker, encoding="utf-8") as file:
            content: Any = json.load(file)
    except (OSError, ValueError):
        return None
    path = content.get("path") if isinstance(content, dict) else None
    return path if isinstance(path, str) and os.path.isfile(os.path.join(path, "config.json")) else None


def _write_marker(marker: str, path: str) -> None:
    # Without the marker a restart asks the Hub again: slower, not wrong.
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(marker), exist_ok=True)
        with open(marker + ".new", "w", encoding="utf-8") as file:
            json.dump({"path": path}, file)
        os.replace(marker + ".new", marker)
