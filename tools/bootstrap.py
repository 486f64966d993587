"""Makes the environments this project runs in, from a system `python3` with pip and nothing else.

Why: `make demo` and `make test` must work on a fresh machine, also where the system Python is externally
managed or has no `venv` module. Standard library only. Everything goes into the user's cache
(`tools.cache`), from the hashed lock files in `requirements/`, without dependency resolution.
It must never write into the checkout or into the Python that runs it.

Usage: `python3 -m tools.bootstrap venv | vllm | path venv | path vllm | env`. `venv` and `vllm` make that
environment (at once if it is there) and print its path; `path` only says where it is or would be; `env`
prints the shell lines that put the project's environment in use. Progress goes to stderr.
"""

from __future__ import annotations

import argparse
import hashlib
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools import cache, checkout, uv
from tools.heartbeat import Heartbeat

ROOT = Path(__file__).resolve().parent.parent
LAYOUT_VERSION = "1"
"""Part of every key: raise it when environments are laid out differently."""
GIB = 1 << 30


@dataclass(frozen=True)
class Environment:
    """One environment: its lock, what its path depends on, what it needs and how long it takes."""

    name: str
    lock: Path
    depends_on: tuple[str, ...]
    disk_bytes: int
    expected: str
    finish: Callable[[Path], None] | None = None
    modules: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """Where it is or would be: a new lock, Python or layout is a new path."""
        key = hashlib.sha256(self.lock.read_bytes())
        for part in (LAYOUT_VERSION, _python_identity(), *self.depends_on):
            key.update(b"\0" + part.encode())
        return cache.root() / f"{self.name}-{key.hexdigest()[:12]}"

    @property
    def stamp(self) -> Path:
        """The file that exists if and only if the environment is whole."""
        return self.path / ".stowage-complete"


def environments() -> dict[str, Environment]:
    """Return the environments by name: `venv` for the project itself, `vllm` for the real engine on CPU."""
    import tomllib  # not there before Python 3.11, which must get a sentence and not a traceback

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = ROOT / "requirements"
    identity = (project["version"], repr(sorted(project["scripts"].items())), str(ROOT))
    return {
        "venv": Environment(
            name="venv",
            lock=requirements / "dev.txt",
            depends_on=identity,
            disk_bytes=1 * GIB,
            expected="10 to 60 seconds, about 0.5 GB on disk",
            finish=lambda path: checkout.link(path, ROOT, project),
        ),
        "vllm": Environment(
            name="vllm",
            lock=requirements / "vllm.txt",
            depends_on=(),
            disk_bytes=9 * GIB,
            expected="1 to 5 minutes with a fast connection, 3 GB to download, 6 GB on disk",
            modules=(
                "vllm.entrypoints.openai.api_server",
                "vllm.v1.engine.core",
                "vllm.v1.executor.multiproc_executor",
                "vllm.v1.worker.cpu_worker",
                "vllm.model_executor.models.llama",
            ),
        ),
    }


def ensure(environment: Environment) -> Path:
    """Make `environment` unless it is there; its path.

    `SystemExit` with one sentence if it cannot be made.
    """
    if not environment.stamp.exists():
        with cache.locked(environment.path):
            if not environment.stamp.exists():
                _create(environment)
    return environment.path


def _create(environment: Environment) -> None:
    path = environment.path
    _refuse_without_disk(environment)
    program = str(uv.executable())
    shutil.rmtree(path, ignore_errors=True)
    _say(f"making the Python environment {path}: {environment.expected}")
    started = time.monotonic()
    python = str(path / "bin" / "python")
    options = ["--quiet"]
    with Heartbeat(cache.root()):
        _run([program, "venv", *options, "--no-project", "--python", uv.base_python(), str(path)])
        install = [program, "pip", "install", *options, "--python", python, "--no-deps", "--require-hashes"]
        _run([*install, "--requirements", str(environment.lock)])
        if environment.modules:
            # A first import proves the environment, and leaves compiled files for those who cannot write.
            _run([python, "-W", "ignore", "-c", f"import {', '.join(environment.modules)}"])
        if environment.finish is not None:
            environment.finish(path)
    environment.stamp.write_text(f"{environment.lock.name}\n", encoding="utf-8")
    _say(f"environment ready after {time.monotonic() - started:.0f} s")


def _refuse_without_disk(environment: Environment) -> None:
    folder = environment.path.parent
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < environment.disk_bytes:
        raise SystemExit(
            f"the environment {environment.name} needs {environment.disk_bytes / GIB:.0f} GiB of free disk "
            f"and {folder} has {free_bytes / GIB:.1f} GiB: free some, or set XDG_CACHE_HOME to a larger disk"
        )


def _run(command: Sequence[str]) -> None:
    """Run one step; what it prints is shown only if it fails."""
    pipe, both = subprocess.PIPE, subprocess.STDOUT
    # Not in the checkout: uv would take settings from its pyproject.toml.
    folder, env = cache.root(), uv.environment()
    result = subprocess.run(command, cwd=folder, env=env, stdout=pipe, stderr=both, text=True, check=False)
    if result.returncode != 0:
        raise SystemExit(f"\n{result.stdout.strip()}\nthis step failed: {shlex.join(command)}")


def _python_identity() -> str:
    major, minor = python_version()
    return f"{sys.implementation.name}-{major}.{minor}-{sys.base_prefix}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _shell_lines(path: Path) -> str:
    return (
        f'export VIRTUAL_ENV={shlex.quote(str(path))}\nexport PATH={shlex.quote(str(path / "bin"))}:"$PATH"'
    )


def python_version() -> tuple[int, int]:
    """Return the version of the Python that runs."""
    return sys.version_info[0], sys.version_info[1]


def _refuse_unsupported_python() -> None:
    major, minor = python_version()
    if not (3, 11) <= (major, minor) <= (3, 13):
        raise SystemExit(
            f"Python {major}.{minor} ({sys.executable}) is not supported: "
            "run this with Python 3.11, 3.12 or 3.13 (make PYTHON=python3.12 …)"
        )


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(
        prog="python3 -m tools.bootstrap", description="make this project's environments"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("venv", help="make the project's environment and print its path")
    commands.add_parser("vllm", help="make the environment of the real vLLM (CPU build) and print its path")
    commands.add_parser("path", help="print a path only").add_argument("name", choices=["venv", "vllm"])
    commands.add_parser("env", help="print shell lines that put the project's environment in use")
    arguments = parser.parse_args()
    _refuse_unsupported_python()
    known = environments()
    if arguments.command == "path":
        print(known[arguments.name].path)
    elif arguments.command == "env":
        print(_shell_lines(ensure(known["venv"])))
    else:
        print(ensure(known[arguments.command]))


if __name__ == "__main__":
    main()
