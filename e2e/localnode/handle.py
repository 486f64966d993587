"""Start and stop a local node as a process of its own, inside a cluster's network: for tests and the demo.

The node's process is killed when the thread that started it ends, and its containers with it.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from e2e.controlplane.cluster import Cluster

READY_SECONDS = 60.0
_STOP_SECONDS = 20.0
_REPOSITORY = Path(__file__).resolve().parents[2]


class LocalNodeError(Exception):
    """The local node did not start; the message holds what it said."""


class LocalNodeProcess:
    """A local node on `cluster` with the nodes of `inventories`; use it as a context manager, from the main thread.

    `state_dir` is the node's own; `variables` are added to its environment (for `${NAME}` in the allow-list).
    """

    def __init__(
        self,
        cluster: Cluster,
        inventories: Sequence[Path],
        state_dir: Path,
        *,
        arguments: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._cluster = cluster
        self._state_dir = state_dir
        self._arguments = [
            *(word for file in inventories for word in ("--inventory", str(file))),
            *arguments,
        ]
        self._variables = dict(variables or {})
        self._process: subprocess.Popen[str] | None = None
        self.description = ""

    @property
    def log(self) -> Path:
        """What the node says on stderr."""
        return self._state_dir / "localnode.log"

    @property
    def pid(self) -> int:
        """The process id; raises `LocalNodeError` when it was not started."""
        if self._process is None:
            raise LocalNodeError("the local node is not started")
        return self._process.pid

    def __enter__(self) -> LocalNodeProcess:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until its nodes are registered; raises `LocalNodeError`."""
        self._state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        command = [sys.executable, "-m", "e2e.localnode", "--kubeconfig", str(self._cluster.kubeconfig)]
        command += ["--state-dir", str(self._state_dir), *self._arguments]
        environment = {**os.environ, **self._variables, "PYTHONPATH": str(_REPOSITORY)}
        with self.log.open("a") as log:
            self._process = self._cluster.namespace.popen(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
                text=True,
            )
        self.description = self._first_line()
        if not self.description.startswith("ready: "):
            self.stop()
            raise LocalNodeError(f"the local node did not start: {self.log.read_text()[-2000:]}")

    def stop(self) -> None:
        """Ask it to end, and make it. Stopping what is stopped does nothing."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._close()

    def kill(self) -> None:
        """Kill -9 it: what happens to its pods then is what a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._close()

    def _close(self) -> None:
        if self._process is not None and self._process.stdout:
            self._process.stdout.close()
        self._process = None

    def _first_line(self) -> str:
        stdout = self._process.stdout if self._process else None
        if stdout is None:
            return ""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if select.select([stdout], [], [], 0.2)[0]:
                return stdout.readline().strip()
        return ""
