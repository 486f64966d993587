"""All tests, in two runs: everything on two processes, then what needs the whole machine for the real vLLM.

With arguments it is one plain pytest run with those arguments. What fails beside another process is run once more
alone, and said: on a small machine two control planes can starve each other. Coverage is measured over the whole suite
and has to reach its floor on the pure core, the part whose every branch can be reached by values alone.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
PURE_CORE = ("api", "model", "hardware", "memory", "planning", "render", "diagnosis", "engine")
CORE_COVERAGE_PERCENT = 90
# One control plane per process: two fit a small machine.
_TESTS_FAILED = 1
_PARALLEL = ("-n", "2", "--dist", "loadfile")


def _pytest(*arguments: str) -> int:
    command = [sys.executable, "-m", "pytest", *arguments]
    return subprocess.run(command, cwd=_ROOT, check=False).returncode


def _core_coverage() -> int:
    include = ",".join(f"operator/stowage/{part}/*" for part in PURE_CORE)
    command = [sys.executable, "-m", "coverage", "report", "--include", include, "--skip-covered"]
    command += ["--fail-under", str(CORE_COVERAGE_PERCENT)]
    print(f"\nCoverage of the pure core (branches included, at least {CORE_COVERAGE_PERCENT} %):", flush=True)
    return subprocess.run(command, cwd=_ROOT, check=False).returncode


def main(arguments: Sequence[str]) -> int:
    """Run the tests; 0 when all passed and the core is covered."""
    if arguments:
        return _pytest(*arguments)
    coverage = ("--cov", "--cov-report=")
    real_engine = _pytest("-m", "vllm", *coverage)
    rest = _pytest("-m", "not vllm", *_PARALLEL, *coverage, "--cov-append")
    if rest == _TESTS_FAILED:
        print("\nRunning the failed tests once more, alone:", flush=True)
        rest = _pytest(
            "-m", "not vllm", "--last-failed", "--last-failed-no-failures", "none", *coverage, "--cov-append"
        )
    return max(real_engine, rest, _core_coverage())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
