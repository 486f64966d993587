"""Which processes belong to a demo's stack, on disk, so that another process can end them: `make down`.

Written as soon as a process exists, so that it is found also if the demo itself is killed. A process is named by
pid, start time and boot: a record that is old never hits a stranger.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from e2e.controlplane.processes import Process
from e2e.stack.service import Service

_NAME = "processes.json"
_GRACE_SECONDS = 10.0


class ProcessesRecord:
    """The record in one directory."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / _NAME

    def add(self, service: Service) -> None:
        """Write down a service that was just started; the file is replaced as a whole."""
        if service.process is None:
            return
        entries = [*self._entries(), {"name": service.name, **service.process.to_record()}]
        temporary = self._path.with_suffix(".new")
        temporary.write_text(json.dumps(entries), encoding="utf-8")
        temporary.replace(self._path)

    def end_all(self, say: Callable[[str], None]) -> int:
        """End what is recorded and still runs, the last started first; how many did."""
        running = [
            (str(entry["name"]), process)
            for entry in reversed(self._entries())
            if (process := Process.from_record(entry)).is_running()
        ]
        for name, process in running:
            say(f"Stopping {name}")
            process.stop(grace_seconds=_GRACE_SECONDS)
        self._path.unlink(missing_ok=True)
        return len(running)

    def _entries(self) -> list[dict[str, object]]:
        if not self._path.exists():
            return []
        entries: list[dict[str, object]] = json.loads(self._path.read_text(encoding="utf-8"))
        return entries
