"""Plan a container's root file system: the machine's own tree, read-only, with the pod's volumes in it.

The plan is a list of operations for `launcher.root`, computed from the mounts and a view of the machine's
files. Mount points that do not exist are made on a small tmpfs that mirrors the directory they lie in, so the
machine's own root is never written to. Pure but for the view that it is given.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

Operation = tuple[str, ...]
_DEVICES = ("full", "null", "random", "tty", "urandom", "zero")
_DEVICE_LINKS = {"fd": "/proc/self/fd", "ptmx": "pts/ptmx"} | {
    name: f"/proc/self/fd/{number}" for number, name in enumerate(("stdin", "stdout", "stderr"))
}
_SKIPPED = {"dev", "proc", "tmp", "lost+found", ".dockerenv"}
_SHM_SIZE = "64m"  # what container runtimes give a container without a volume there


class MountPlanError(Exception):
    """A mount cannot be provided; the message names it."""


class HostView(Protocol):
    """What the plan must know of the machine's files. Paths are absolute."""

    def kind(self, path: str) -> str | None:
        """Return `dir`, `file`, `link` or None where there is nothing."""

    def names(self, path: str) -> list[str]:
        """Return the sorted names in a directory."""

    def target(self, path: str) -> str:
        """Return what a symbolic link says."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One file or directory of the machine that the container sees at `target`."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class RootLayout:
    """What a container's root is made of, besides the machine's tree.

    `private` directories are hidden behind an empty tmpfs (home, /tmp, state); of what they hold only
    `exposed` is visible, read-only. With `read_only_root` every tmpfs that the plan adds is sealed at the
    end.
    """

    mounts: tuple[Mount, ...]
    private: tuple[str, ...] = ()
    exposed: tuple[str, ...] = ()
    read_only_root: bool = False
    own_proc: bool = True


def plan_root(layout: RootLayout, host: HostView) -> list[Operation]:
    """Return the operations that build the root; raises `MountPlanError` for a mount that cannot be made."""
    return _Planner(layout, host).plan()


def is_below(path: str, directory: str) -> bool:
    """Whether `path` is `directory` or lies in it."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


@dataclass(slots=True)
class _Planner:
    layout: RootLayout
    host: HostView
    operations: list[Operation] = field(default_factory=list)
    scratch: dict[str, bool] = field(default_factory=dict)  # tmpfs mounts: path -> sealed at the end
    made: set[str] = field(default_factory=set)  # what the plan made on a tmpfs
    sources: dict[str, str] = field(default_factory=dict)  # bind target -> source

    def plan(self) -> list[Operation]:
        mounts = sorted(self._with_exposed(), key=lambda mount: mount.target.count("/"))
        self._skeleton()
        for directory in self._mirrored(mounts):
            self._mirror(directory)
        for directory in self._private():
            self._tmpfs(directory, "1777" if directory in ("/tmp", "/var/tmp") else "0755")
        for mount in mounts:
            self._bind(mount)
        if self.layout.read_only_root:
            # A volume that is mounted right on a tmpfs (/tmp above all) has taken its place: it stays writable.
            sealed = sorted(path for path, seal in self.scratch.items() if seal and path not in self.sources)
            self.operations += [("seal", path) for path in sealed]
        return self.operations

    def _private(self) -> list[str]:
        """Directories to hide, outermost first, without those that another one hides already."""
        found: list[str] = []
        for path in sorted(self.layout.private):
            if self.host.kind(path) == "dir" and not any(is_below(path, other) for other in found):
                found.append(path)
        return found

    def _with_exposed(self) -> Iterable[Mount]:
        private = self._private()
        for path in self.layout.exposed:
            if any(is_below(path, directory) for directory in private):
                yield Mount(self._resolve(path), path, read_only=True)
        for mount in self.layout.mounts:
            yield Mount(mount.source, self._resolve(mount.target), mount.read_only)

    def _resolve(self, path: str) -> str:
        """Follow the machine's symbolic links in `path` (/var/run → /run), as far as it exists."""
        current, rest = "/", [part for part in posixpath.normpath(path).split("/") if part]
        for _ in range(200):
            if not rest:
                return current
            step = posixpath.join(current, rest.pop(0))
            if self.host.kind(step) == "link":
                to = posixpath.normpath(posixpath.join(current, self.host.target(step)))
                current, rest = "/", [part for part in to.split("/") if part] + rest
            else:
                current = step
        raise MountPlanError(f"mountPath {path}: too many symbolic links")

    def _skeleton(self) -> None:
        self._tmpfs("/", "0755")
        for name in self.host.names("/"):
            if name not in _SKIPPED:
                self._show("/" + name)
        for name in ("/dev", "/proc", "/tmp"):
            self._directory(name, "1777" if name == "/tmp" else "0755")
        if self.layout.own_proc:
            self.operations.append(("proc", "/proc"))
        else:
            self.operations.append(("bind", "/proc", "/proc", "rw"))
        self._devices()

    def _devices(self) -> None:
        self._tmpfs("/dev", "0755", seal=False)
        for name in _DEVICES:
            if self.host.kind(f"/dev/{name}") == "file":
                self._show(f"/dev/{name}", access="rw")
        self._directory("/dev/pts")
        self.operations.append(("bind", "/dev/pts", "/dev/pts", "rw"))
        self._directory("/dev/shm", "1777")
        self._tmpfs("/dev/shm", "1777", seal=False, size=_SHM_SIZE)
        for name, to in _DEVICE_LINKS.items():
            self.operations.append(("link", f"/dev/{name}", to))

    def _mirrored(self, mounts: Sequence[Mount]) -> list[str]:
        """Return the machine's directories in which a mount point is missing, outermost first."""
        found = set()
        for mount in mounts:
            directory = mount.target
            while self.host.kind(directory) is None:
                directory = posixpath.dirname(directory)
            inside = any(other != mount and is_below(mount.target, other.target) for other in mounts)
            if directory not in ("/", mount.target) and not inside and not self._covered(directory):
                found.add(directory)
        return sorted(found)

    def _covered(self, path: str) -> bool:
        """Whether a tmpfs other than the root's shows at `path` whatever the machine has there."""
        return any(is_below(path, directory) for directory in (*self._private(), "/dev", "/proc", "/tmp"))

    def _mirror(self, directory: str) -> None:
        self._tmpfs(directory, "0755")
        for name in self.host.names(directory):
            self._show(posixpath.join(directory, name))

    def _bind(self, mount: Mount) -> None:
        kind = self.host.kind(mount.source)
        if kind not in ("dir", "file"):
            raise MountPlanError(f"mountPath {mount.target}: {mount.source} does not exist on this machine")
        if is_below(mount.target, "/proc") or mount.target == "/":
            raise MountPlanError(f"mountPath {mount.target}: nothing can be mounted there")
        self._make_point(mount.target, kind)
        self.operations.append(("bind", mount.target, mount.source, "ro" if mount.read_only else "rw"))
        self.sources[mount.target] = mount.source

    def _make_point(self, target: str, kind: str) -> None:
        missing: list[str] = []
        path = target
        while not self._exists(path):
            missing.append(path)
            path = posixpath.dirname(path)
        for path in reversed(missing):
            if kind == "file" and path == target:
                self.operations.append(("file", path))
                self.made.add(path)
            else:
                self._directory(path)

    def _exists(self, path: str) -> bool:
        """Whether the container will have something at `path`, by the mount that covers it."""
        if path in self.made or path in self.scratch or path in self.sources:
            return True
        cover = max((p for p in (*self.scratch, *self.sources) if is_below(path, p)), key=len)
        if cover in self.scratch:
            return False
        return self.host.kind(self.sources[cover] + path[len(cover) :]) is not None

    def _show(self, path: str, access: str = "ro") -> None:
        """Let the container see what the machine has at `path`."""
        kind = self.host.kind(path)
        if kind == "link":
            self.operations.append(("link", path, self.host.target(path)))
        elif kind is not None:
            if kind == "dir":
                self._directory(path)
            else:
                self.operations.append(("file", path))
            self.operations.append(("bind", path, path, access))
            self.sources[path] = path
        self.made.add(path)

    def _directory(self, path: str, mode: str = "0755") -> None:
        self.operations.append(("dir", path, mode))
        self.made.add(path)

    def _tmpfs(self, path: str, mode: str, *, seal: bool = True, size: str = "") -> None:
        self.operations.append(("tmpfs", path, mode, size))
        self.scratch[path] = seal
        for known in [p for p in self.sources if is_below(p, path)]:
            del self.sources[known]
        self.made = {p for p in self.made if p == path or not is_below(p, path)}
