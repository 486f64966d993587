"""Start a container's first process, or a further one inside it: `python -I -S launcher/__main__.py < SPEC`.

The specification arrives as JSON on stdin (it may hold secrets, so it never touches a disk). This process
stays as the supervisor: it ends with the container's exit code, and the kernel kills the container when it
ends. On the descriptor `status_fd` it writes one JSON line with the pid, and one with an error where the
start failed. It must never leave a descendant of the container running.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from e2e.localnode.launcher import syscalls
from e2e.localnode.launcher.identity import take_identity
from e2e.localnode.launcher.root import build_root

START_ERROR = 128
_NAMESPACES = {"mnt": syscalls.CLONE_NEWNS, "uts": syscalls.CLONE_NEWUTS, "pid": syscalls.CLONE_NEWPID}


def main() -> int:
    """Supervise one process until it ends; returns its exit code, or 128 + the signal that ended it."""
    with os.fdopen(0, "rb", closefd=False) as stdin:
        spec: dict[str, Any] = json.loads(stdin.read())
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.set_inheritable(spec["status_fd"], False)
    own_processes = "pid" in spec["namespaces"]
    # Without a PID namespace somebody must outlive the node for a moment, to kill the container's descendants.
    syscalls.die_with_parent(signal.SIGKILL if own_processes else signal.SIGTERM)
    if os.getppid() != spec["parent"]:
        return START_ERROR
    syscalls.adopt_orphans()
    try:
        _enter_namespaces(spec)
    except OSError as error:
        _tell(spec["status_fd"], {"error": str(error)})
        return START_ERROR
    alive_reader, alive_writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(alive_writer)
        _become(spec, alive_reader)
    os.close(alive_reader)
    if not own_processes:
        signal.signal(signal.SIGTERM, lambda _number, _frame: os.kill(child, signal.SIGKILL))
    _tell(spec["status_fd"], {"pid": child, "ticks": int(_stat(child)[19])})
    os.close(spec["status_fd"])
    for descriptor in (1, 2):  # the container's log belongs to the container
        os.dup2(0, descriptor)
    return _wait(child)


def _enter_namespaces(spec: dict[str, Any]) -> None:
    """Make a new container's namespaces; of one that is joined, enter only that of the processes.

    The child does the rest, because this process still needs the machine's own /proc.
    """
    if spec.get("join"):
        if "pid" in spec["namespaces"]:
            _join(spec["join"], ["pid"])
        return
    flags = 0
    for kind in spec["namespaces"]:
        flags |= _NAMESPACES[kind]
    if flags:
        syscalls.unshare(flags)


def _join(pid: int, kinds: list[str]) -> None:
    opened = [(kind, os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY)) for kind in kinds]
    for kind, descriptor in opened:
        syscalls.setns(descriptor, kind)
        os.close(descriptor)


def _become(spec: dict[str, Any], alive: int) -> NoReturn:
    """In the child: build the root, drop privileges, `exec`. Never returns."""
    try:
        os.setsid()
        if spec.get("join"):
            _join(spec["join"], [kind for kind in spec["namespaces"] if kind != "pid"])
        if spec.get("hostname") and "uts" in spec["namespaces"]:
            _set_hostname(spec["hostname"])
        if spec.get("operations"):
            build_root(spec["staging"], spec["operations"])
        _change_directory(spec.get("cwd") or "/")
        take_identity(spec.get("identity") or {})
        syscalls.die_with_parent()  # after the identity: changing credentials forgets it
        if select.select([alive], [], [], 0)[0]:  # end of file: the supervisor has gone already
            os._exit(START_ERROR)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these, and `exec` would hand that on
            signal.signal(number, signal.SIG_DFL)
        _exec(spec["argv"], spec["env"])
    except OSError as error:
        _tell(spec["status_fd"], {"error": str(error)})
    os._exit(START_ERROR)


def _set_hostname(name: str) -> None:
    import socket

    socket.sethostname(name)


def _change_directory(path: str) -> None:
    with contextlib.suppress(FileExistsError):
        if not os.path.isdir(path):
            os.makedirs(path)
    os.chdir(path)


def _exec(argv: list[str], env: dict[str, str]) -> None:
    """Replace this process; looks the command up in the container's own PATH."""
    command = argv[0]
    if "/" in command:
        os.execve(command, argv, env)
    refusal: OSError | None = None
    for directory in env.get("PATH", "").split(":"):
        try:
            os.execve(os.path.join(directory, command), argv, env)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                refusal = error
    if refusal is not None:
        raise refusal
    raise FileNotFoundError(errno.ENOENT, f'exec: "{command}": executable file not found in $PATH')


def _tell(descriptor: int, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        os.write(descriptor, json.dumps(message).encode() + b"\n")


def _wait(child: int) -> int:
    status = 0
    while True:
        try:
            pid, code = os.waitpid(-1, 0)
        except ChildProcessError:
            return _exit_code(status)
        if pid == child:
            status = code
            _kill_rest()


def _kill_rest() -> None:
    """Kill what outlived the container's first process; with a PID namespace the kernel has done so."""
    while rest := [
        pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _parent(pid) == os.getpid()
    ]:
        for pid in rest:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _parent(pid: int) -> int:
    try:
        return int(_stat(pid)[1])
    except (OSError, IndexError):
        return 0


def _stat(pid: int) -> list[bytes]:
    """Return the fields of proc_pid_stat(5) from the third one (state) on."""
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else START_ERROR - code


if __name__ == "__main__":
    sys.exit(main())
