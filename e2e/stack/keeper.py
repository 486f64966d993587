"""Runs a program and starts it again when it ends by itself, as a kubelet does with a container.

    python -m e2e.stack.keeper COMMAND …

An operator that loses its Lease ends, and in a cluster its Deployment brings it back; this does the same here. The
wait before a start doubles up to ten seconds. SIGTERM is passed on and ends both; the program never outlives its
keeper.
"""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import time
from types import FrameType

_PR_SET_PDEATHSIG = 1
_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 10.0
_STEADY_SECONDS = 60.0
"""A program that ran for that long starts with the first wait again."""


def main(command: list[str]) -> int:
    """Keep `command` running until told to end; gives the code of its last run."""
    ending = False
    child: subprocess.Popen[bytes] | None = None

    def end(_number: int, _frame: FrameType | None) -> None:
        nonlocal ending
        ending = True
        if child is not None and child.poll() is None:
            child.terminate()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    wait = _FIRST_WAIT_SECONDS
    code = 0
    while not ending:
        started = time.monotonic()
        child = subprocess.Popen(command, preexec_fn=_end_with_parent)
        code = child.wait()
        if ending or code == 0:
            break
        wait = _FIRST_WAIT_SECONDS if time.monotonic() - started > _STEADY_SECONDS else wait
        print(f"{command[-1]} ended with {code}; it starts again in {wait:g} s", flush=True)
        time.sleep(wait)
        wait = min(2 * wait, _LONGEST_WAIT_SECONDS)
    return code


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
