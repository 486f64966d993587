"""Say what one container sees: its mounts, its environment, its user; the specification for the launcher.

Pure but for looking at the machine's files. It must never show a container the user's home directory, the
cluster's keys or another pod's volumes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from e2e.localnode.host_files import HostFiles
from e2e.localnode.images import LocalImage
from e2e.localnode.isolation import Isolation
from e2e.localnode.root_plan import Mount, RootLayout, plan_root
from e2e.localnode.volumes import Volume

_SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
TERMINATION_LOG = "/dev/termination-log"


class ConfigError(Exception):
    """A container's own settings contradict each other; the message is what its status will say."""


@dataclass(frozen=True, slots=True)
class ContainerSetup:
    """Everything that a container's root and identity are made of."""

    pod: Mapping[str, Any]
    container: Mapping[str, Any]
    image: LocalImage
    volumes: Mapping[str, Volume]
    termination_log: Path
    hosts_file: Path
    isolation: Isolation
    staging: Path
    hidden: tuple[Path, ...]


def launch_spec(setup: ContainerSetup, argv: list[str], variables: Mapping[str, str]) -> dict[str, Any]:
    """Return the launcher's specification; `variables` are those that the pod defines.

    Raises `ConfigError` and `MountPlanError`.
    """
    security = security_context(setup.pod, setup.container)
    identity = _identity(setup, security)
    spec: dict[str, Any] = {
        "namespaces": list(setup.isolation.namespaces),
        "argv": argv,
        "env": _base_variables(setup, identity) | dict(setup.image.env) | dict(variables),
        "cwd": setup.container.get("workingDir") or "/",
        "hostname": setup.pod["spec"].get("hostname") or setup.pod["metadata"]["name"],
        "identity": identity,
    }
    if setup.isolation.mounts:
        spec["staging"] = str(setup.staging)
        spec["operations"] = plan_root(_layout(setup, security), HostFiles())
    return spec


def join_spec(spec: Mapping[str, Any], pid: int, argv: list[str]) -> dict[str, Any]:
    """Return the specification for a further process inside a running container (exec probes and hooks)."""
    kinds = [kind for kind in ("pid", "uts", "mnt") if kind in spec["namespaces"]]
    kept = {key: spec[key] for key in ("env", "cwd", "identity")}
    return {**kept, "join": pid, "namespaces": kinds, "argv": argv}


def security_context(pod: Mapping[str, Any], container: Mapping[str, Any]) -> dict[str, Any]:
    """Return the container's securityContext laid over the pod's."""
    merged = dict(pod["spec"].get("securityContext") or {})
    merged.update(container.get("securityContext") or {})
    return merged


def interpreter_roots(directories: Iterable[str]) -> list[str]:
    """Return the directories that must be visible for the programs in `directories` to work.

    These are the environments that they belong to, and every installation that a `python3` in there links to.
    """
    found: list[str] = []
    for directory in directories:
        found.append(str(Path(directory).parent) if Path(directory).name == "bin" else directory)
        link = Path(directory) / "python3"
        for _ in range(16):
            if not link.is_symlink():
                break
            link = link.parent / os.readlink(link)
            if link.parent.name == "bin":
                root = os.path.normpath(link.parent.parent)
                found += [root, os.path.realpath(root)]
    return list(dict.fromkeys(found))


def closed_directories(paths: Iterable[str]) -> list[str]:
    """Return the outermost directory above each path that only its owner may pass, as another user's home.

    A container that runs as somebody else sees nothing in there, unless an empty directory takes its place.
    """
    found: list[str] = []
    for path in paths:
        above = reversed(Path(path).parents)
        closed = (each for each in above if each.is_dir() and not each.stat().st_mode & stat.S_IXOTH)
        found += [str(each) for each in islice(closed, 1)]
    return list(dict.fromkeys(found))


def _layout(setup: ContainerSetup, security: Mapping[str, Any]) -> RootLayout:
    home = str(Path.home())
    python_path = [entry for entry in setup.image.env.get("PYTHONPATH", "").split(":") if entry]
    exposed = (*interpreter_roots(setup.image.path), *python_path, *setup.image.expose)
    private = ["/tmp", "/var/tmp", *map(str, setup.hidden), *closed_directories(exposed)]
    return RootLayout(
        mounts=tuple(_mounts(setup)),
        private=(*private, *(() if home == "/" else (home,))),
        exposed=exposed,
        read_only_root=bool(security.get("readOnlyRootFilesystem")),
        own_proc=setup.isolation.own_processes,
    )


def _mounts(setup: ContainerSetup) -> Iterable[Mount]:
    yield Mount(str(setup.hosts_file), "/etc/hosts")
    path = setup.container.get("terminationMessagePath") or TERMINATION_LOG
    yield Mount(str(setup.termination_log), path)
    for target, directory in setup.image.mounts.items():
        yield Mount(directory, target, read_only=True)
    for entry in setup.container.get("volumeMounts") or []:
        volume = setup.volumes[entry["name"]]
        source = volume.source
        if entry.get("subPath"):
            source = _sub_path(source, entry["subPath"], create=not volume.read_only)
        yield Mount(str(source), entry["mountPath"], bool(entry.get("readOnly")) or volume.read_only)


def _sub_path(source: Path, sub_path: str, *, create: bool) -> Path:
    path = (source / sub_path).resolve()
    if not path.is_relative_to(source.resolve()):
        raise ConfigError(f"subPath {sub_path} leaves its volume")
    if create and not path.exists():
        path.mkdir(parents=True, mode=0o777)
    return path


def _identity(setup: ContainerSetup, security: Mapping[str, Any]) -> dict[str, Any]:
    uid = security.get("runAsUser", setup.image.user)
    if security.get("runAsNonRoot") and uid == 0:
        raise ConfigError("container has runAsNonRoot and image will run as root")
    capabilities = security.get("capabilities") or {}
    identity: dict[str, Any] = {
        "drop": capabilities.get("drop") or [],
        "add": capabilities.get("add") or [],
        "no_new_privileges": security.get("allowPrivilegeEscalation") is False,
    }
    group = security.get("runAsGroup")
    if setup.isolation.other_users and (uid or group is not None):
        extra = [*(security.get("supplementalGroups") or []), security.get("fsGroup")]
        identity["uid"], identity["gid"] = uid, group or 0
        identity["groups"] = [gid for gid in extra if gid is not None]
    return identity


def _base_variables(setup: ContainerSetup, identity: Mapping[str, Any]) -> dict[str, str]:
    return {
        "PATH": ":".join([*setup.image.path, *_SYSTEM_PATH]),
        "HOME": "/" if identity.get("uid") else str(Path.home()),
        "HOSTNAME": setup.pod["metadata"]["name"],
        "LANG": "C.UTF-8",
    }
