"""Build the multi-call binary once and keep it in the cache.

Two builders at the same time wait for one another, and a half-written file is never seen under the final
name. The build must never write into the checkout.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

from e2e.controlplane.go_module import GoModule
from e2e.controlplane.go_toolchain import find_go, install_go
from e2e.controlplane.progress import Reporter, Step

_TAIL_LINES = 25


class BuildError(Exception):
    """`go build` failed; the message holds the end of its output."""


def build(module: GoModule, environment: Mapping[str, str], reporter: Reporter) -> Path:
    """Return the built binary, building it if the cache does not hold it.

    Raises `BuildError`, or `ToolchainError` where Go is missing and cannot be installed.
    """
    binary = module.cached_binary(environment)
    if binary.exists():
        return binary
    binary.parent.mkdir(parents=True, exist_ok=True)
    with _lock(binary.parent / "lock", reporter):
        if binary.exists():
            return binary
        go = find_go(environment, module.go_version) or install_go(environment, reporter)
        partial = binary.with_name(f"{binary.name}.partial")
        title = f"Building the Kubernetes {module.kubernetes_version} control plane, once"
        with reporter.step(
            title, "9 minutes on 2 cores, less with a warm Go cache; 1 GB of downloads"
        ) as step:
            _go_build(go, module, partial, step)
        partial.rename(binary)
    return binary


def _go_build(go: Path, module: GoModule, output: Path, step: Step) -> None:
    environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": ""}
    step.update("counting packages, downloading modules")
    listed = subprocess.run(
        [go, "list", "-mod=readonly", "-deps", "."],
        cwd=module.directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        raise BuildError(f"{go} list failed: {listed.stderr.strip()[-2000:]}")
    total, done = len(listed.stdout.split()), 0
    command = [str(go), "build", "-v", *module.flags, "-o", str(output), "."]
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    with subprocess.Popen(
        command, cwd=module.directory, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None  # asked for above
        for line in process.stderr:
            tail.append(line)
            done += not line.startswith(("go: ", "#"))
            step.update(f"compiled {line.strip()}", done, total)
            if line.strip() == "stowage.dev/e2e/controlplane":
                step.update("linking", total, total)
    if process.returncode != 0:
        raise BuildError(f"{' '.join(command[:2])} ended with {process.returncode}:\n{''.join(tail)}")


@contextlib.contextmanager
def _lock(path: Path, reporter: Reporter) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with reporter.step("Waiting for another build of the control plane", "up to 9 minutes"):
                fcntl.flock(file, fcntl.LOCK_EX)
        yield
