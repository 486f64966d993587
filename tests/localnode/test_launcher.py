"""The launcher for real, without a cluster: mounts, descendants, joining."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from e2e.controlplane.processes import Process
from e2e.localnode.host_files import HostFiles
from e2e.localnode.isolation import Isolation, find_isolation
from e2e.localnode.launcher.identity import dropped_numbers
from e2e.localnode.processes import ContainerProcess, StartError, reap_recorded, run_process, start_process
from e2e.localnode.root_plan import Mount, RootLayout, plan_root

PATH = "/usr/local/bin:/usr/bin:/bin"


@pytest.fixture
async def isolation(tmp_path: Path) -> Isolation:
    (tmp_path / "trial").mkdir()
    return await find_isolation(tmp_path / "trial")


def shell(script: str, **fields: Any) -> dict[str, Any]:
    return {"namespaces": [], "argv": ["sh", "-c", script], "env": {"PATH": PATH}, **fields}


def contained(
    isolation: Isolation, tmp_path: Path, script: str, *mounts: Mount, **layout: Any
) -> dict[str, Any]:
    if not isolation.mounts:
        pytest.skip(f"this machine refuses mount namespaces: {isolation.reason}")
    (tmp_path / "staging").mkdir(exist_ok=True)
    plan = plan_root(RootLayout(mounts, own_proc=isolation.own_processes, **layout), HostFiles())
    return shell(script, namespaces=isolation.namespaces, staging=str(tmp_path / "staging"), operations=plan)


async def finish(process: ContainerProcess) -> int:
    return await asyncio.wait_for(process.wait(), 20)


def records(directory: Path) -> int:
    return len(list(directory.glob("*.json")))


async def gone(pid: int, ticks: int) -> bool:
    named = Process.of(pid)
    if named is None or named.started_ticks != ticks:
        return True
    return await asyncio.to_thread(named.wait_gone, 10.0)


@pytest.mark.parametrize(
    ("script", "code"),
    [
        pytest.param("exit 0", 0, id="success"),
        pytest.param("exit 7", 7, id="failure"),
        pytest.param("kill -9 $$", 137, id="killed"),
    ],
)
async def test_the_exit_code_is_the_container_s(script: str, code: int) -> None:
    assert await run_process(shell(script), 20) == code


async def test_what_cannot_be_started_says_why() -> None:
    with pytest.raises(StartError, match='exec: "no-such-program": executable file not found'):
        await start_process({**shell(""), "argv": ["no-such-program"]}, None)


async def test_output_goes_to_the_log(tmp_path: Path) -> None:
    process = await start_process(shell("echo out; echo err >&2"), tmp_path / "log")
    assert await finish(process) == 0
    assert (tmp_path / "log").read_text() == "out\nerr\n"


async def test_volumes_are_visible_and_the_machine_s_root_is_not_written_to(
    tmp_path: Path, isolation: Isolation
) -> None:
    (tmp_path / "volume").mkdir()
    before = sorted(os.listdir("/"))
    script = (
        "set -e; echo data > /deep/new/file; ! touch /etc/forbidden 2>/dev/null; touch /tmp/private; ls /tmp"
    )
    mount = Mount(str(tmp_path / "volume"), "/deep/new")
    spec = contained(isolation, tmp_path, script, mount, private=("/tmp",))
    assert await finish(await start_process(spec, tmp_path / "log")) == 0
    assert (tmp_path / "volume" / "file").read_text() == "data\n"
    assert (tmp_path / "log").read_text() == "private\n"
    assert sorted(os.listdir("/")) == before


async def test_a_command_can_join_a_running_container(tmp_path: Path, isolation: Isolation) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume" / "inside").touch()
    spec = contained(isolation, tmp_path, "exec sleep 100", Mount(str(tmp_path / "volume"), "/only/here"))
    process = await start_process(spec, None)
    try:
        join = {
            "join": process.pid,
            "namespaces": [n for n in ("pid", "uts", "mnt") if n in isolation.namespaces],
        }
        assert await run_process({**shell("test -e /only/here/inside"), **join}, 20) == 0
        assert await run_process({**shell("test -e /only/here/other"), **join}, 20) == 1
    finally:
        process.kill()
        assert await finish(process) == 137


@pytest.mark.parametrize("own_processes", [True, False])
async def test_descendants_that_hide_in_sessions_of_their_own_die_with_the_container(
    tmp_path: Path, isolation: Isolation, own_processes: bool
) -> None:
    if own_processes and not isolation.own_processes:
        pytest.skip("this machine refuses PID namespaces")
    up = tmp_path / "up"
    script = f"setsid sh -c 'echo start > {up}; sleep 777.25' & while ! test -s {up}; do :; done"
    spec = shell(script)
    if own_processes:
        spec["namespaces"] = ["pid"]
    assert await finish(await start_process(spec, None)) == 0
    assert not running("sleep\x00777.25")


def running(command: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "cmdline").read_text()
            except OSError:
                continue
            found += [entry.name] * (command in text)
    return found


async def test_without_a_pid_namespace_the_supervisor_ends_all_descendants_when_the_node_is_gone(
    tmp_path: Path,
) -> None:
    up = tmp_path / "up"
    hidden = (
        f"setsid sh -c 'echo start > {up}; sleep 778.25' & while ! test -s {up}; do :; done; exec sleep 778.5"
    )
    process = await start_process(shell(hidden), None)
    await asyncio.to_thread(wait_for, "sleep\x00778.5")
    process.supervisor.send_signal(signal.SIGTERM)  # what the kernel sends then
    assert await finish(process) == 137
    assert not running("sleep\x00778.")


def wait_for(command: str) -> None:
    deadline = time.monotonic() + 20
    while not running(command):
        assert time.monotonic() < deadline, f"{command} did not start"
        time.sleep(0.02)


async def test_killing_the_supervisor_kills_the_container(isolation: Isolation) -> None:
    namespaces = [kind for kind in isolation.namespaces if kind == "pid"]
    process = await start_process(shell("sleep 100", namespaces=namespaces), None)
    process.supervisor.kill()
    await process.supervisor.wait()
    assert await gone(process.pid, process.ticks)


async def test_what_an_earlier_node_left_is_found_and_killed(tmp_path: Path) -> None:
    process = await start_process(shell("exec sleep 100"), None, tmp_path)
    assert records(tmp_path) == 1
    reaping = asyncio.create_task(asyncio.to_thread(reap_recorded, tmp_path))
    assert await process.wait() == 137
    assert await reaping == 1
    assert await gone(process.pid, process.ticks)
    assert records(tmp_path) == 0


async def test_a_process_that_ended_is_never_signalled(tmp_path: Path) -> None:
    process = await start_process(shell("exit 0"), None)
    await finish(process)
    process.pid = os.getpid()  # as if the number had been given to somebody else
    process.signal(signal.SIGKILL)


async def test_a_process_that_takes_too_long_is_killed() -> None:
    with pytest.raises(TimeoutError):
        await run_process(shell("exec sleep 888.5"), 0.3)
    assert not running("sleep\x00888.5")


def test_dropping_all_capabilities_keeps_only_those_that_are_added() -> None:
    everything = dropped_numbers(["ALL"], [])
    assert everything == list(range(41))
    assert set(everything) - set(dropped_numbers(["ALL"], ["NET_BIND_SERVICE"])) == {10}
    assert dropped_numbers(["CAP_SYS_ADMIN", "KILL"], []) == [5, 21]
