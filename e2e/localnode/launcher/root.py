"""Carry out the list of operations that `e2e.localnode.root_plan` made: build a container's root file system.

It works in a mount namespace of its own and only below a staging directory, so that nothing is written to the
machine's own root. It must never be called outside of a new mount namespace.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Any

from e2e.localnode.launcher import syscalls

TMPFS_FLAGS = syscalls.MS_NOSUID | syscalls.MS_NODEV


def build_root(staging: str, operations: Sequence[Sequence[Any]]) -> None:
    """Build the root below `staging` and enter it.

    Each operation is a list `[name, path, …]`; `path` is as the container will see it.
    """
    syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    os.umask(0)
    for name, path, *rest in operations:
        _ACTIONS[name](staging + path.rstrip("/"), *rest)
    syscalls.enter_root(staging)
    os.umask(0o022)


def _tmpfs(target: str, mode: str, size: str) -> None:
    options = f"mode={mode}" + (f",size={size}" if size else "")
    syscalls.mount("tmpfs", target, "tmpfs", TMPFS_FLAGS, options)


def _directory(target: str, mode: str) -> None:
    # A mount point inside a volume is still there when the container starts again.
    with contextlib.suppress(FileExistsError):
        os.mkdir(target, int(mode, 8))


def _file(target: str) -> None:
    os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o666))


def _link(target: str, to: str) -> None:
    os.symlink(to, target)


def _bind(target: str, source: str, access: str) -> None:
    syscalls.mount(source, target, "", syscalls.MS_BIND | syscalls.MS_REC)
    if access == "ro":
        syscalls.make_read_only(target)


def _proc(target: str) -> None:
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    syscalls.mount("proc", target, "proc", flags)


def _seal(target: str) -> None:
    flags = syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_RDONLY | TMPFS_FLAGS
    syscalls.mount("none", target or "/", "", flags)


_ACTIONS: dict[str, Callable[..., None]] = {
    "tmpfs": _tmpfs,
    "dir": _directory,
    "file": _file,
    "link": _link,
    "bind": _bind,
    "proc": _proc,
    "seal": _seal,
}
