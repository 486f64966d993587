"""Give up what a container's securityContext says it must not have: user, groups, capabilities.

Called in the child just before `exec`. It must never give anything that the launcher does not hold already.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from e2e.localnode.launcher import syscalls

# capability.h of the kernel, in order of their numbers.
CAPABILITIES = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
]


def dropped_numbers(drop: list[str], add: list[str]) -> list[int]:
    """Return the numbers of the capabilities to drop; `ALL` means every one that `add` does not name."""
    kept = {name.removeprefix("CAP_") for name in add}
    wanted = {name.removeprefix("CAP_") for name in drop}
    return [
        number
        for number, name in enumerate(CAPABILITIES)
        if ("ALL" in wanted and name not in kept) or (name in wanted)
    ]


def take_identity(identity: Mapping[str, Any]) -> None:
    """Become the user, group and capability set that `identity` describes; absent keys change nothing."""
    with open("/proc/sys/kernel/cap_last_cap") as file:
        last = int(file.read())
    for number in dropped_numbers(identity.get("drop", []), identity.get("add", [])):
        if number <= last:
            syscalls.drop_capability(number)
    if identity.get("groups") is not None:
        os.setgroups(identity["groups"])
    if identity.get("gid") is not None:
        os.setresgid(identity["gid"], identity["gid"], identity["gid"])
    if identity.get("uid") is not None:
        os.setresuid(identity["uid"], identity["uid"], identity["uid"])
    if identity.get("no_new_privileges"):
        syscalls.forbid_new_privileges()
