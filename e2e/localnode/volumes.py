"""Make a pod's volumes real directories of this machine, and remove them with the pod.

Everything lives below the pod's own directory (memory volumes below /dev/shm), readable by the node's user
only from outside. It must never write into a hostPath or claimed volume beyond creating what its type asks
for.
"""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.controlplane.enter import start_ticks
from e2e.localnode.api_client import ApiClient, ApiError
from e2e.localnode.environment import MissingReference
from e2e.localnode.volume_data import VolumeFile, downward_files, keyed_files

Json = Mapping[str, Any]
SHARED_MEMORY = Path("/dev/shm")
_PREFIX = "stowage-localnode-"
_DEFAULT_MODE = 0o644


class UnsupportedVolume(Exception):
    """A volume that this node cannot provide; the message names it."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A directory (or file) of this machine that stands for a volume."""

    source: Path
    read_only: bool = False


class PodVolumes:
    """The volumes of one pod below `directory`; memory volumes below /dev/shm, named by `token` and uid."""

    def __init__(self, api: ApiClient, pod: Json, directory: Path, token: str) -> None:
        self._api = api
        self._pod = pod
        self._directory = directory / "volumes"
        self._memory = SHARED_MEMORY / f"{_PREFIX}{token}" / pod["metadata"]["uid"]

    async def materialise(self) -> dict[str, Volume]:
        """Create every volume of the pod; raises `MissingReference` for what does not exist yet."""
        self._directory.mkdir(parents=True, exist_ok=True)
        return {entry["name"]: await self._volume(entry) for entry in self._pod["spec"].get("volumes") or []}

    def remove(self) -> None:
        """Delete what was created; data of hostPath and claims stays."""
        shutil.rmtree(self._directory, ignore_errors=True)
        shutil.rmtree(self._memory, ignore_errors=True)

    async def _volume(self, entry: Json) -> Volume:
        if "hostPath" in entry:
            return Volume(_host_path(entry["hostPath"]))
        if "persistentVolumeClaim" in entry:
            return await self._claim(entry["persistentVolumeClaim"])
        if "emptyDir" in entry:
            return self._empty(entry["name"], entry["emptyDir"])
        source = next(key for key in entry if key != "name")
        sources = entry[source]["sources"] if source == "projected" else [{source: entry[source]}]
        mode = entry[source].get("defaultMode", _DEFAULT_MODE)
        files = [file for part in sources for file in await self._files(part, mode)]
        return Volume(self._write(entry["name"], files), read_only=True)

    def _empty(self, name: str, source: Json) -> Volume:
        memory = source.get("medium") == "Memory" and SHARED_MEMORY.is_dir()
        path = (self._memory if memory else self._directory) / name
        if memory:
            self._memory.mkdir(mode=0o711, parents=True, exist_ok=True)
        path.mkdir(exist_ok=True)
        path.chmod(0o777)
        group = (self._pod["spec"].get("securityContext") or {}).get("fsGroup")
        if group is not None and os.geteuid() == 0:
            _give_to_group(path, group)
        return Volume(path)

    async def _files(self, source: Json, mode: int) -> list[VolumeFile]:
        kind, details = next(iter(source.items()))
        if kind == "configMap":
            data = await self._data("configmaps", details["name"])
            return keyed_files(details, data, mode, f'configmap "{details["name"]}"')
        if kind == "secret":
            name = details.get("secretName") or details["name"]
            return keyed_files(details, await self._data("secrets", name), mode, f'secret "{name}"')
        if kind == "downwardAPI":
            return downward_files(details["items"], self._pod, mode)
        if kind == "serviceAccountToken":
            token = await self._token(details)
            return [VolumeFile(details["path"], token.encode(), mode)]
        raise UnsupportedVolume(f"volume source {kind}")

    async def _data(self, kind: str, name: str) -> dict[str, bytes] | None:
        namespace = self._pod["metadata"]["namespace"]
        try:
            found = await self._api.get(f"/api/v1/namespaces/{namespace}/{kind}/{name}")
        except ApiError as error:
            if error.code == 404:
                return None
            raise
        binary = found.get("data") if kind == "secrets" else found.get("binaryData")
        text = {} if kind == "secrets" else found.get("data") or {}
        plain = {key: value.encode() for key, value in text.items()}
        return plain | {key: base64.b64decode(value) for key, value in (binary or {}).items()}

    async def _token(self, details: Json) -> str:
        metadata = self._pod["metadata"]
        account = self._pod["spec"].get("serviceAccountName") or "default"
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [details["audience"]] if details.get("audience") else [],
                "expirationSeconds": details.get("expirationSeconds") or 3600,
                "boundObjectRef": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                },
            },
        }
        path = f"/api/v1/namespaces/{metadata['namespace']}/serviceaccounts/{account}/token"
        try:
            return str((await self._api.create(path, request))["status"]["token"])
        except ApiError as error:
            raise MissingReference(f"token of serviceaccount {account}: {error}") from error

    async def _claim(self, source: Json) -> Volume:
        namespace, name = self._pod["metadata"]["namespace"], source["claimName"]
        try:
            claim = await self._api.get(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}")
            bound = claim["spec"].get("volumeName")
            if not bound:
                raise MissingReference(f'persistentvolumeclaim "{name}" is not bound')
            volume = await self._api.get(f"/api/v1/persistentvolumes/{bound}")
        except ApiError as error:
            raise MissingReference(f'persistentvolumeclaim "{name}": {error}') from error
        if "hostPath" not in volume["spec"]:
            raise UnsupportedVolume(
                f"persistentVolumeClaim {name}: only hostPath volumes can be mounted here"
            )
        read_only = bool(source.get("readOnly"))
        return Volume(_host_path(volume["spec"]["hostPath"]), read_only)

    def _write(self, name: str, files: Sequence[VolumeFile]) -> Path:
        base = self._directory / name
        shutil.rmtree(base, ignore_errors=True)
        base.mkdir()
        for file in files:
            path = base / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.content)
            path.chmod(file.mode)
        base.chmod(0o755)
        return base


def memory_token() -> str:
    """Return the name of this process's memory volumes: its pid and start time."""
    return f"{os.getpid()}-{start_ticks(os.getpid())}"


def remove_memory(*, abandoned_only: bool) -> None:
    """Delete the memory volumes of this process, or those of processes that ended without doing so."""
    for directory in SHARED_MEMORY.glob(f"{_PREFIX}*"):
        token = directory.name.removeprefix(_PREFIX)
        pid, _, ticks = token.partition("-")
        if not (pid.isdigit() and ticks.isdigit()):
            continue
        abandoned = start_ticks(int(pid)) != int(ticks)
        if abandoned if abandoned_only else token == memory_token():
            shutil.rmtree(directory, ignore_errors=True)


def _host_path(source: Json) -> Path:
    path, kind = Path(source["path"]), source.get("type") or ""
    if kind == "DirectoryOrCreate":
        path.mkdir(parents=True, exist_ok=True)
    elif kind == "FileOrCreate":
        path.touch()
    fits = {"Directory": path.is_dir, "DirectoryOrCreate": path.is_dir, "File": path.is_file}
    if not fits.get(kind, path.exists)():
        raise MissingReference(
            f"hostPath type check failed: {path} is not a {kind or 'path of this machine'}"
        )
    return path.resolve()


def _give_to_group(path: Path, group: int) -> None:
    try:
        os.chown(path, -1, group)
    except OSError:  # in a user namespace where this group does not exist; mode 0777 lets it in all the same
        return
    path.chmod(0o2777)
