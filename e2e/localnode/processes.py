"""Start containers' processes through the launcher, keep a record of them on disk, and end all of them.

A record is the pid and start time of a supervisor (see `launcher`), so that a restarted node finds what an
earlier one left. Nothing here may signal a process that its record does not name exactly.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.controlplane.enter import start_ticks
from e2e.controlplane.processes import Process

LAUNCHER = Path(__file__).with_name("launcher") / "__main__.py"


class StartError(Exception):
    """A process could not be started; the message says why."""


@dataclass(slots=True)
class ContainerProcess:
    """A running container: its supervisor, and the pid of its first process as this machine sees it."""

    supervisor: asyncio.subprocess.Process
    pid: int
    ticks: int
    record: Path | None = None

    async def wait(self) -> int:
        """Return the exit code when it has ended: 128 + n for signal n."""
        code = await self.supervisor.wait()
        if self.record:
            self.record.unlink(missing_ok=True)
        return code if code >= 0 else 128 - code

    def signal(self, number: int) -> None:
        """Send a signal to the container's first process, if it still runs."""
        if start_ticks(self.pid) == self.ticks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End the container at once; the supervisor then ends what else is left of it."""
        self.signal(signal.SIGKILL)


async def start_process(
    spec: Mapping[str, Any], log: Path | None, records: Path | None = None
) -> ContainerProcess:
    """Run the launcher with `spec` (see `launcher.__main__`), its output appended to `log`.

    Raises `StartError` where the launcher could not get as far as running the command.
    """
    reader, writer = os.pipe()
    output = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        supervisor = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", str(LAUNCHER),
            stdin=asyncio.subprocess.PIPE, stdout=output, stderr=output,
            pass_fds=[writer], start_new_session=True, env={},
        )  # fmt: skip
    finally:
        os.close(writer)
        os.close(output)
    record = _write_record(records, supervisor.pid)
    try:
        await _send(supervisor, {**spec, "parent": os.getpid(), "status_fd": writer})
        message = await _answer(reader)
    except BaseException:
        supervisor.kill()
        os.close(reader)
        raise
    if "error" in message or "pid" not in message:
        code = await supervisor.wait()
        if record:
            record.unlink(missing_ok=True)
        raise StartError(message.get("error") or f"the launcher ended with {code}")
    return ContainerProcess(supervisor, message["pid"], message["ticks"], record)


async def run_process(spec: Mapping[str, Any], timeout_seconds: float) -> int:
    """Run a short process to its end; raises `TimeoutError` (and kills it) when it takes too long."""
    process = await start_process(spec, None)
    try:
        return await asyncio.wait_for(process.wait(), timeout_seconds)
    finally:
        if process.supervisor.returncode is None:
            process.kill()
            await process.supervisor.wait()


def reap_recorded(records: Path) -> int:
    """Kill every process that the records of an earlier node name; returns how many still ran."""
    found = 0
    for file in sorted(records.glob("*.json")):
        process = Process.from_record(json.loads(file.read_text()))
        found += process.signal(signal.SIGKILL)
        process.wait_gone(5.0)
        file.unlink(missing_ok=True)
    return found


def _write_record(records: Path | None, pid: int) -> Path | None:
    process = Process.of(pid)
    if records is None or process is None:
        return None
    file = records / f"{pid}.json"
    file.write_text(json.dumps(process.to_record()))
    return file


async def _send(supervisor: asyncio.subprocess.Process, spec: Mapping[str, Any]) -> None:
    stdin = supervisor.stdin
    if stdin is None:
        raise RuntimeError("the launcher has no stdin")
    with contextlib.suppress(ConnectionError):
        stdin.write(json.dumps(spec).encode())
        await stdin.drain()
    stdin.close()
    with contextlib.suppress(ConnectionError):
        await stdin.wait_closed()


async def _answer(descriptor: int) -> dict[str, Any]:
    """Read the launcher's lines until it closes the pipe (by `exec`), and merge them."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb")
    )
    try:
        text = await reader.read()
    finally:
        transport.close()
    merged: dict[str, Any] = {}
    for line in text.splitlines():
        merged.update(json.loads(line))
    return merged
