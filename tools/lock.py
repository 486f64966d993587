"""Recompiles the hashed lock files in `requirements/`.

Why: every environment of this project comes from a lock file that names exact versions and hashes, so that a
fresh machine gets what was tested. The locks are solved once for all supported Pythons on Linux x86-64.
It must never write the address of a package registry or a path of this machine into a lock: where packages
come from is the business of whoever installs.

Usage: `python3 -m tools.lock [NAME …] [--upgrade]`, names as in `LOCKS`; without a name, all of them.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tools import uv

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
OLDEST_PYTHON = "3.11"
MARKER = "python_full_version < '3.14' and platform_machine == 'x86_64' and sys_platform == 'linux'"
"""What uv repeats on every line of a lock that is solved for these environments only."""

_SOLVE_FOR = f"""[project]
name = "lock"
version = "0"

[tool.uv]
environments = ["{MARKER}"]
"""
_ADDRESS = re.compile(r"://|--(?:extra-)?index|--find-links|^-f |file:", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Lock:
    """One lock file: what it is solved from and with which additional options of `uv pip compile`."""

    output: str
    source: str
    options: tuple[str, ...] = ()
    any_platform: bool = False


LOCKS = {
    "uv": Lock("uv.txt", "requirements/uv.in", any_platform=True),
    "dev": Lock("dev.txt", "pyproject.toml", ("--extra", "dev")),
    "operator": Lock("operator.txt", "pyproject.toml", ("--constraints", "requirements/dev.txt")),
    "vllm": Lock("vllm.txt", "requirements/vllm.in", ("--overrides", "requirements/vllm-overrides.txt")),
}


def compile_lock(lock: Lock, *, upgrade: bool) -> None:
    """Solve `lock` and replace its file; `SystemExit` with one sentence if it would name an address."""
    output = REQUIREMENTS / lock.output
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        (scratch / "pyproject.toml").write_text(_SOLVE_FOR, encoding="utf-8")
        solved = scratch / lock.output
        if output.exists() and not upgrade:
            solved.write_bytes(output.read_bytes())
        subprocess.run(_command(lock, solved), cwd=scratch, env=uv.environment(), check=True)
        text = _tidy(solved.read_text(encoding="utf-8"), scratch)
    if found := _ADDRESS.search(text):
        raise SystemExit(
            f"{output.name} would contain {found.group()!r}: a lock may not say where packages come from"
        )
    output.write_text(text, encoding="utf-8")
    print(f"{output.relative_to(ROOT)}: {text.count('==')} packages", file=sys.stderr)


def _command(lock: Lock, output: Path) -> list[str]:
    options = [
        str(ROOT / option) if option.startswith("requirements/") else option for option in lock.options
    ]
    solve_for = ["--python-version", OLDEST_PYTHON]
    if not lock.any_platform:
        solve_for += ["--universal"]
    return [
        str(uv.executable()), "pip", "compile", str(ROOT / lock.source), "--output-file", str(output),
        "--quiet", "--generate-hashes", "--no-header", "--no-emit-index-url", "--no-emit-find-links",
        *solve_for, *options,
    ]  # fmt: skip


def _tidy(text: str, scratch: Path) -> str:
    """Drop the marker that every line carries and the absolute paths in uv's `via` comments."""
    for path in (f"{ROOT}/", f"{scratch}/"):
        text = text.replace(path, "")
    return re.sub(r" ; " + re.escape(MARKER) + r"(?= \\$|$)", "", text, flags=re.MULTILINE)


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(prog="python3 -m tools.lock", description="recompile the lock files")
    parser.add_argument("names", nargs="*", choices=[*LOCKS, []], help="which locks (all if none is named)")
    parser.add_argument("--upgrade", action="store_true", help="take newest versions instead of keeping pins")
    arguments = parser.parse_args()
    for name in arguments.names or LOCKS:
        compile_lock(LOCKS[name], upgrade=arguments.upgrade)


if __name__ == "__main__":
    main()
