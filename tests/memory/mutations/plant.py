"""Plant one mistake at a time into a copy of the memory model, and see that a test notices it.

    python -m tests.memory.mutations.plant [--only WORD]

A mistake that no test notices is a formula that nothing pins. The sources themselves are never touched: every
mistake goes into a copy, which comes first on the path of the tests that are run.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
SOURCES = ROOT / "operator" / "stowage"


@dataclass(frozen=True)
class Mutation:
    """One mistake: what stands in `file` instead of `old`, and the tests that must fail then."""

    formula: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def mutations() -> tuple[Mutation, ...]:
    """Read the table."""
    text = Path(__file__).with_name("mutations.toml").read_text(encoding="utf-8")
    rows = tomllib.loads(text)["mutation"]
    return tuple(Mutation(**{**row, "tests": tuple(row["tests"])}) for row in rows)


def is_noticed(mutation: Mutation) -> bool:
    """Run the tests of a mutation against a copy that has it, and tell whether one failed."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "stowage"
        shutil.copytree(SOURCES, copy, ignore=shutil.ignore_patterns("__pycache__", ".mypy_cache"))
        path = copy / mutation.file
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
        places = [str(place) for place in (folder, ROOT / "runtime", ROOT)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
        options = ["-q", "-x", "-p", "no:cacheprovider", "-o", f"pythonpath={' '.join(places)}"]
        command = [sys.executable, "-m", "pytest", *options, *mutation.tests]
        run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
        if run.returncode not in (0, 1):
            raise RuntimeError(f"{mutation.formula}: {run.stdout.decode()[-2000:]}")
        return run.returncode == 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Plant all mutations, or those whose formula or file holds a word."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default="", metavar="WORD")
    wanted = parser.parse_args(arguments).only
    survivors = 0
    for mutation in mutations():
        if wanted not in f"{mutation.formula} {mutation.file}":
            continue
        noticed = is_noticed(mutation)
        survivors += not noticed
        print(f"{'noticed ' if noticed else 'SURVIVED'}  {mutation.file}: {mutation.formula}", flush=True)
    return 1 if survivors else 0


if __name__ == "__main__":
    raise SystemExit(main())
