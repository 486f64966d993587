"""A program that ends by itself is started again; one that is told to end takes its keeper along."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

KEEPER = [sys.executable, "-m", "e2e.stack.keeper"]


def keep(script: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*KEEPER, "/bin/sh", "-c", script], stdout=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail("it did not happen in time")
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_what_ends_by_itself_is_started_again(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    keeper = keep(f"echo run >> {runs}; [ $(wc -l < {runs}) -ge 3 ] && exit 0; exit 7")
    assert keeper.wait(timeout=30) == 0
    assert runs.read_text().split() == ["run"] * 3
    assert keeper.stdout is not None
    assert "ended with 7; it starts again in 0.5 s" in keeper.stdout.read()
    keeper.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["asked to end", "killed"])
def test_the_program_never_outlives_its_keeper(tmp_path: Path, number: signal.Signals) -> None:
    file = tmp_path / "pid"
    keeper = keep(f"echo $$ > {file}; exec sleep 600")
    wait_for(lambda: file.exists() and file.read_text().strip().isdigit())
    pid = int(file.read_text())
    os.kill(keeper.pid, number)
    keeper.wait(timeout=30)
    wait_for(lambda: not is_alive(pid))
    assert keeper.stdout is not None
    keeper.stdout.close()
