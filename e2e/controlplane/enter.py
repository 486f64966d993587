"""Start a command inside the cluster's namespaces: the last step before `exec`, on the standard library only.

This file is run as a script (`python -I -S enter.py …`), never imported by what it starts, so that entering
costs one interpreter start and needs no tool of the system. It keeps its process id across `exec`, which
makes the caller's child the command itself. It must never start the command outside of the namespaces it
was told.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
from typing import NoReturn

PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def start_ticks(pid: int) -> int:
    """Return when a process began, in clock ticks since boot: with the pid, its name. 0: there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


def die_with_parent(parent: int) -> None:
    """Have the kernel SIGKILL this process when the thread that started it ends; exit if it already has."""
    if _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit(1)


def join(holder: int, ticks: int) -> None:
    """Join the user namespace (unless it is ours already) and the network namespace of the process `holder`.

    Raises `OSError` where the kernel refuses and `ProcessLookupError` where that process is gone.
    """
    for name in ("user", "net"):
        target = f"/proc/{holder}/ns/{name}"
        if start_ticks(holder) != ticks:
            raise ProcessLookupError(f"the cluster's namespace holder (pid {holder}) is gone")
        if os.stat(target).st_ino == os.stat(f"/proc/self/ns/{name}").st_ino:
            continue
        descriptor = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
        if _LIBC.setns(descriptor, 0) != 0:
            error = ctypes.get_errno()
            raise OSError(error, f"setns({target}): {os.strerror(error)}")
        os.close(descriptor)


def main(arguments: list[str]) -> NoReturn:
    """Enter, then become the command; ends with 127 and one sentence when that is not possible."""
    parser = argparse.ArgumentParser(prog="enter")
    parser.add_argument("--holder", help="PID:TICKS of the process whose namespaces to join")
    parser.add_argument("--parent", type=int, help="be killed when this parent process ends")
    parser.add_argument("--session", action="store_true", help="be the leader of a session of its own")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(arguments)
    try:
        if options.session:
            os.setsid()
        if options.holder:
            pid, ticks = options.holder.split(":")
            join(int(pid), int(ticks))
        if options.parent:  # after `join`: changing credentials forgets it
            die_with_parent(options.parent)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these, and `exec` would hand that on
            signal.signal(number, signal.SIG_DFL)
        os.execvp(options.command[0], options.command)
    except OSError as error:
        sys.stderr.write(f"cannot run {options.command[0]} in the cluster's namespace: {error}\n")
        sys.exit(127)


if __name__ == "__main__":
    main(sys.argv[1:])
