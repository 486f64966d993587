"""A process is hit only if it is the very one that was recorded."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.controlplane.processes import Process, launcher, spawn, stop_all

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]
IGNORE = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
STUBBORN = [
    sys.executable,
    "-c",
    f"import signal, time; {IGNORE}; print('ready', flush=True); time.sleep(600)",
]


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Process]:
    process = spawn(SLEEPER, tmp_path / "log", os.environ)
    yield process
    process.stop(grace_seconds=0.0)


def wait_for_text(path: Path, text: str) -> None:
    while not (path.exists() and text in path.read_text()):
        time.sleep(0.01)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"started_ticks": 1}, id="a pid that was given to a later process is not hit"),
        pytest.param({"boot": "another"}, id="a pid that was recorded before a reboot is not hit"),
    ],
)
def test_a_stranger_is_not_hit(sleeper: Process, change: dict[str, object]) -> None:
    stale = dataclasses.replace(sleeper, **change)  # type: ignore[arg-type]
    assert not stale.is_running()
    assert not stale.signal(signal.SIGKILL)
    stale.stop(grace_seconds=0.0)
    assert sleeper.is_running()


def test_the_recorded_process_is_hit(sleeper: Process) -> None:
    again = Process.from_record(sleeper.to_record())
    assert again == sleeper
    assert again.signal(signal.SIGKILL)
    assert sleeper.wait_gone(10.0)
    assert not sleeper.signal(signal.SIGKILL)


def test_a_zombie_does_not_count_as_running() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        process = Process.of(child.pid)
        assert process is not None
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not process.is_running()


def test_what_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    process = spawn(STUBBORN, tmp_path / "log", os.environ)
    wait_for_text(tmp_path / "log", "ready")
    process.stop(grace_seconds=0.1)
    assert not process.is_running()


def test_many_are_ended_within_one_grace(tmp_path: Path) -> None:
    processes = [spawn(command, tmp_path / "log", os.environ) for command in (SLEEPER, STUBBORN, SLEEPER)]
    stop_all(processes, grace_seconds=0.2)
    assert not any(process.is_running() for process in processes)


def test_a_launched_command_keeps_its_pid_and_leads_a_session() -> None:
    show = [sys.executable, "-c", "import os; print(os.getpid(), os.getsid(0))"]
    words = [*launcher(holder=None, session=True, parent=None), *show]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.read().split() == [str(process.pid), str(process.pid)]


def test_a_launched_command_reacts_to_a_closed_pipe() -> None:
    words = [*launcher(holder=None, session=False, parent=None), "yes"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        process.stdout.close()
    assert process.returncode == -signal.SIGPIPE


def test_a_launched_command_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    program = f"""
        import os, pathlib, signal
        from e2e.controlplane.processes import launcher, spawn
        words = [*launcher(holder=None, session=True, parent=os.getpid()), *{SLEEPER!r}]
        log = pathlib.Path({str(tmp_path / "log")!r})
        print(spawn(words, log, os.environ).pid, flush=True)
        input()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        child = Process.of(int(starter.stdout.readline()))
        assert child is not None
        assert child.is_running()
        starter.communicate("\n")
    assert child.wait_gone(10.0)


def test_a_command_that_does_not_exist_ends_with_one_sentence(tmp_path: Path) -> None:
    words = [*launcher(holder=None, session=False, parent=None), "/nonexistent/program"]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.returncode == 127
    assert result.stderr.startswith("cannot run /nonexistent/program")


def test_a_holder_that_is_gone_is_not_entered(sleeper: Process) -> None:
    stale = dataclasses.replace(sleeper, started_ticks=1)
    words = [*launcher(holder=stale, session=False, parent=None), "true"]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.returncode == 127
    assert "namespace holder" in result.stderr
