"""The system calls that Python 3.11 does not offer: unshare, setns, mount, pivot_root, mount_setattr, prctl.

Every wrapper raises `OSError` with the call and its subject in the message. Nothing here decides anything.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWPID = 0x00020000, 0x04000000, 0x20000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x1, 0x2, 0x4, 0x8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 0x20, 0x1000, 0x4000, 0x40000
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 24, 36, 38
# pivot_root has no wrapper in glibc and mount_setattr only in a late one; numbers of x86-64 and of the
# generic table (aarch64), from the kernel's syscall tables.
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_MOUNT_SETATTR = 442
_AT_FDCWD, _AT_RECURSIVE, _MOUNT_ATTR_RDONLY = -100, 0x8000, 0x1
_LIBC = ctypes.CDLL(None, use_errno=True)


class _MountAttributes(ctypes.Structure):
    _fields_ = [
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    ]


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Leave the namespaces named by `flags` for new ones (unshare(2))."""
    _check(_LIBC.unshare(flags), f"unshare({flags:#x})")


def setns(descriptor: int, kind: str) -> None:
    """Join the namespace behind an open `/proc/PID/ns/KIND` (setns(2))."""
    _check(_LIBC.setns(descriptor, 0), f"setns({kind})")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """Mount (mount(2)); `kind` is a file system type or empty for a bind."""
    result = _LIBC.mount(
        source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), options.encode()
    )
    _check(result, f"mount {kind or 'bind'} {source} on {target}")


def make_read_only(target: str) -> bool:
    """Make the mount at `target` and all below it read-only; False where the kernel is older than 5.12."""
    attributes = _MountAttributes(attr_set=_MOUNT_ATTR_RDONLY)
    result = _LIBC.syscall(
        ctypes.c_long(_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(target.encode()),
        ctypes.c_uint(_AT_RECURSIVE),
        ctypes.byref(attributes),
        ctypes.c_size_t(ctypes.sizeof(attributes)),
    )
    if result != 0 and ctypes.get_errno() == 38:  # ENOSYS
        return False
    _check(result, f"mount_setattr(read-only) {target}")
    return True


def enter_root(new_root: str) -> None:
    """Make `new_root` (a mount point) the root of this mount namespace and detach the old one."""
    os.chdir(new_root)
    number = _PIVOT_ROOT[os.uname().machine]
    _check(_LIBC.syscall(ctypes.c_long(number), b".", b"."), f"pivot_root({new_root})")
    _check(_LIBC.umount2(b".", MNT_DETACH), "umount2(old root)")
    os.chdir("/")


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Have the kernel send a signal to this process when the thread that made it ends (prctl(2))."""
    _check(_LIBC.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def adopt_orphans() -> None:
    """Become the parent of every orphaned descendant (prctl(2), PR_SET_CHILD_SUBREAPER)."""
    _check(_LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl(PR_SET_CHILD_SUBREAPER)")


def drop_capability(number: int) -> None:
    """Take a capability out of the bounding set, so that no `exec` gives it back (capabilities(7))."""
    _check(_LIBC.prctl(PR_CAPBSET_DROP, number, 0, 0, 0), f"prctl(PR_CAPBSET_DROP, {number})")


def forbid_new_privileges() -> None:
    """Make `exec` ignore set-user-id bits from here on (prctl(2), PR_SET_NO_NEW_PRIVS)."""
    _check(_LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")


def supported_machine() -> bool:
    """Whether the numbers above are known for this machine."""
    return sys.platform == "linux" and os.uname().machine in _PIVOT_ROOT
