"""Provides the pinned `uv`, installed once per pin into the user's cache.

Why: `uv` builds every environment of this project, and needs neither root nor the `venv` module, nor does it
touch a system Python that is externally managed. Standard library only, run by the system's `python3`.
It must never install anything into the Python that runs it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tools import cache

_LEFT_OUT = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE")
"""Variables that would make a new environment depend on the shell that made it."""

LOCK = Path(__file__).resolve().parent.parent / "requirements" / "uv.txt"


def executable() -> Path:
    """Path of the pinned `uv`, installed first if it is not there.

    `SystemExit` with one sentence if it cannot be.
    """
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    target = cache.root() / "uv" / digest
    program = target / "bin" / "uv"
    if program.exists():
        return program
    with cache.locked(target):
        if not program.exists():
            print("installing uv (about 25 MB, a few seconds) …", file=sys.stderr, flush=True)
            _install(target)
    return program


def base_python() -> str:
    """Return the Python behind the one that runs, which has pip: an environment of this project has none."""
    if sys.prefix == sys.base_prefix:
        return sys.executable
    return str(Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}")


def environment() -> dict[str, str]:
    """Return the environment `uv` runs in: this one, with pip's mirror and certificates carried over."""
    env = {key: value for key, value in os.environ.items() if key not in _LEFT_OUT}
    env["UV_PYTHON_DOWNLOADS"] = "never"
    env["UV_NO_PROGRESS"] = env.get("UV_NO_PROGRESS", "0" if sys.stderr.isatty() else "1")
    for variable, setting in (("UV_DEFAULT_INDEX", "global.index-url"), ("SSL_CERT_FILE", "global.cert")):
        if variable not in env and "UV_INDEX_URL" not in env and (value := _pip_setting(setting)):
            env[variable] = value
    return env


def _pip_setting(name: str) -> str:
    """Return a setting of the user's pip (file or variable), or an empty string."""
    if value := os.environ.get("PIP_" + name.rpartition(".")[2].replace("-", "_").upper()):
        return value
    command = [base_python(), "-m", "pip", "config", "get", name]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else ""


def _install(target: Path) -> None:
    """Install into a folder beside `target`, then rename: `target` is either whole or not there."""
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    command = [
        base_python(), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input",
        "--no-deps", "--only-binary", ":all:", "--require-hashes", "--target", str(partial),
        "--requirement", str(LOCK),
    ]  # fmt: skip
    # A user-wide `user = true` or `require-virtualenv = true` would contradict --target.
    env = {**os.environ, "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        shutil.rmtree(partial, ignore_errors=True)
        raise SystemExit(_explain(result.stderr or result.stdout))
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


def _explain(output: str) -> str:
    if "No module named pip" in output:
        return f"{base_python()} has no pip: install it (Debian, Ubuntu: python3-pip), then try again"
    last_lines = "\n".join(output.strip().splitlines()[-5:])
    return f"uv could not be installed with {base_python()} -m pip:\n{last_lines}"
