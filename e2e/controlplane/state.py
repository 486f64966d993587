"""What is remembered on disk of a control plane: its record, and the right to delete its directory.

The record is replaced as a whole, so that a reader never sees half of it. Only a directory that holds a
record (or nothing) is ever emptied.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from e2e.controlplane.components import Layout, Options
from e2e.controlplane.namespace import Namespace
from e2e.controlplane.processes import Process

RECORD_NAME = "control-plane.json"


class StateError(Exception):
    """The state directory cannot be used as it is; the message says why and what to do."""


def default_directory(environment: Mapping[str, str]) -> Path:
    """Return `$XDG_STATE_HOME/stowage/controlplane`, by default below `~/.local/state`."""
    base = environment.get("XDG_STATE_HOME") or os.path.join(
        environment.get("HOME") or Path.home(), ".local/state"
    )
    return Path(base) / "stowage" / "controlplane"


@dataclass(slots=True)
class State:
    """Everything that another process needs in order to use or end a control plane."""

    layout: Layout
    namespace: Namespace
    options: Options
    commands: dict[str, list[str]]
    processes: dict[str, Process] = field(default_factory=dict)

    def save(self) -> None:
        """Replace the record on disk."""
        record = {
            "ports": dict(self.layout.ports),
            "namespace": self.namespace.to_record(),
            "options": {
                "node_monitor_grace_period": self.options.node_monitor_grace_period,
                "extra_arguments": {
                    name: list(words) for name, words in self.options.extra_arguments.items()
                },
            },
            "commands": self.commands,
            "processes": {name: process.to_record() for name, process in self.processes.items()},
        }
        path = self.layout.directory / RECORD_NAME
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(record, indent=1))
        partial.replace(path)

    @classmethod
    def load(cls, directory: Path) -> State | None:
        """Read the record of a directory; None where there is none."""
        try:
            record: dict[str, Any] = json.loads((directory / RECORD_NAME).read_text())
        except FileNotFoundError:
            return None
        options = record["options"]
        extra = {name: tuple(words) for name, words in options["extra_arguments"].items()}
        return cls(
            Layout(directory, record["ports"]),
            Namespace.from_record(record["namespace"]),
            Options(options["node_monitor_grace_period"], extra),
            record["commands"],
            {name: Process.from_record(entry) for name, entry in record["processes"].items()},
        )


@contextlib.contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Hold the directory's lock while it is set up or torn down; creates the directory with mode 0700.

    Raises `StateError` where another process holds it, or where the directory holds something else.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    names = {entry.name for entry in directory.iterdir()}
    if names and RECORD_NAME not in names:
        raise StateError(f"{directory}: not empty and not a control plane's; name an empty state directory")
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(descriptor, directory)
        yield
    finally:
        os.close(descriptor)


def clear(directory: Path) -> None:
    """Remove a control plane's files, the record last; keep the directory, which the caller has locked."""
    for entry in sorted(directory.iterdir(), key=lambda entry: entry.name == RECORD_NAME):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _lock(descriptor: int, directory: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        same = os.fstat(descriptor).st_ino == directory.stat().st_ino
    except (BlockingIOError, FileNotFoundError):
        same = False
    if not same:  # held, or removed by its last holder meanwhile
        raise StateError(f"{directory}: another process is at work on this control plane")
