"""Find out what this machine lets the node do for a container: private mounts, own processes, other users.

It is tried, not guessed: the launcher is run once with each set of namespaces. What is refused is said in
`reason`, and pods that need it then fail with that reason instead of running differently.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.localnode.host_files import HostFiles
from e2e.localnode.processes import StartError, run_process
from e2e.localnode.root_plan import RootLayout, plan_root

_ATTEMPTS = (("mnt", "uts", "pid"), ("mnt", "uts"), ("mnt",))


@dataclass(frozen=True, slots=True)
class Isolation:
    """The namespaces that containers get, and whether they may run as a user of their own."""

    namespaces: tuple[str, ...]
    other_users: bool
    reason: str = ""

    @property
    def mounts(self) -> bool:
        """Whether volumes can be shown at their mountPath."""
        return "mnt" in self.namespaces

    @property
    def own_processes(self) -> bool:
        """Whether a container has a process table of its own, which the kernel clears when it ends."""
        return "pid" in self.namespaces

    def describe(self) -> str:
        """Say in one sentence what containers get."""
        if not self.mounts:
            return f"no mount namespaces, pods with volumes will fail ({self.reason})"
        processes = "own process table" if self.own_processes else "shared process table"
        return f"own root with volumes, {processes}" + (", runAsUser enforced" if self.other_users else "")


async def find_isolation(staging: Path) -> Isolation:
    """Try the launcher with ever less isolation; `staging` is an empty directory."""
    other_users = may_change_user()
    refusals = []
    for namespaces in _ATTEMPTS:
        layout = RootLayout(mounts=(), own_proc="pid" in namespaces)
        spec: dict[str, Any] = {
            "namespaces": namespaces,
            "staging": str(staging),
            "operations": plan_root(layout, HostFiles()),
            "argv": ["/bin/true"],
            "env": {},
        }
        try:
            if await run_process(spec, timeout_seconds=20) == 0:
                return Isolation(namespaces, other_users)
        except (StartError, TimeoutError) as error:
            refusals.append(str(error))
    return Isolation((), other_users, refusals[-1] if refusals else "the trial did not end well")


def may_change_user() -> bool:
    """Whether this process is root of a user namespace in which other users exist."""
    ranges = [line.split() for line in Path("/proc/self/uid_map").read_text().splitlines()]
    effective = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Uid")
    )
    return effective.split()[2] == "0" and sum(int(entry[2]) for entry in ranges) > 1
