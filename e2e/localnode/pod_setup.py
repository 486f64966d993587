"""Prepare what a pod's containers are started with: volumes, hosts file, data for variables, the image.

It reads the API and writes only below the pod's own directory. Missing things raise; waiting is the caller's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from e2e.localnode.api_client import ApiClient, ApiError
from e2e.localnode.container_root import ConfigError, ContainerSetup, launch_spec
from e2e.localnode.container_runner import UnknownImage
from e2e.localnode.context import NodeContext
from e2e.localnode.environment import Lookups, container_environment, decoded, expanded_command
from e2e.localnode.images import LocalImage
from e2e.localnode.inventory import NodeManifest
from e2e.localnode.service_links import service_variables
from e2e.localnode.simulated_gpus import VARIABLE, describe_gpus
from e2e.localnode.volumes import PodVolumes, Volume

Json = Mapping[str, Any]


class PodSetup:
    """The preparation of one pod on one node."""

    def __init__(self, context: NodeContext, node: NodeManifest, pod: Json) -> None:
        self._context = context
        self._node = node
        self._pod = pod
        self._volumes: Mapping[str, Volume] = {}
        self.directory = context.pod_directory(pod["metadata"]["uid"])
        self._pod_volumes = PodVolumes(context.api, pod, self.directory, context.token)

    async def materialise(self, address: str) -> None:
        """Create directory, volumes and hosts file; raises `MissingReference`, `UnsupportedVolume`."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._volumes = await self._pod_volumes.materialise()
        self._hosts_file.write_text(_hosts(self._pod, address))

    def remove(self) -> None:
        """Delete the volumes; the logs stay until the pod is forgotten."""
        self._pod_volumes.remove()

    def termination_log(self, container: Json) -> Path:
        """Return the file that a container sees at its terminationMessagePath."""
        directory = self.directory / "termination"
        directory.mkdir(exist_ok=True)
        file = directory / str(container["name"])
        file.touch()
        file.chmod(0o666)
        return file

    async def launch(self, container: Json, address: str) -> dict[str, Any]:
        """Return what to launch for a container now.

        Raises `UnknownImage`, `MissingReference`, `ConfigError`, `ImageError`, `MountPlanError`,
        `ValueError`.
        """
        image = self._context.images.find(container["image"])
        if image is None:
            text = "is not on the local node's list of images (e2e/images.yaml); it runs nothing else"
            raise UnknownImage(f'image "{container["image"]}" {text}')
        variables = await self._variables(container, address)
        argv = expanded_command(container, image.command, variables)
        if not container.get("command") and not container.get("args"):
            argv += image.args
        if not argv:
            raise ConfigError(f"no command specified, and image {container['image']} has none here")
        setup = ContainerSetup(
            pod=self._pod,
            container=container,
            image=image,
            volumes=self._volumes,
            termination_log=self.termination_log(container),
            hosts_file=self._hosts_file,
            isolation=self._context.isolation,
            staging=self._context.staging,
            hidden=(self._context.state_dir,),
        )
        return launch_spec(setup, argv, self._gpus(container, image) | variables)

    @property
    def _hosts_file(self) -> Path:
        return self.directory / "hosts"

    def _gpus(self, container: Json, image: LocalImage) -> dict[str, str]:
        facts = describe_gpus(self._node, container) if image.engine == "simulated" else None
        return {VARIABLE: facts} if facts else {}

    async def _variables(self, container: Json, address: str) -> dict[str, str]:
        maps, secrets = referenced_names(container)
        lookups = Lookups(
            pod={
                **self._pod,
                "status": {
                    **self._pod.get("status", {}),
                    "podIP": address,
                    "hostIP": self._context.host_address,
                },
            },
            config_maps={
                name: data for name in maps if (data := await self._data("configmaps", name)) is not None
            },
            secrets={
                name: data for name in secrets if (data := await self._data("secrets", name)) is not None
            },
        )
        links = service_variables(self._pod, self._context.services(), self._context.api_address)
        return container_environment(container, links, lookups)

    async def _data(self, kind: str, name: str) -> dict[str, str] | None:
        return await object_data(self._context.api, self._pod["metadata"]["namespace"], kind, name)


async def object_data(api: ApiClient, namespace: str, kind: str, name: str) -> dict[str, str] | None:
    """Return the text data of a ConfigMap or Secret, None where it does not exist."""
    try:
        found = await api.get(f"/api/v1/namespaces/{namespace}/{kind}/{name}")
    except ApiError as error:
        if error.code == 404:
            return None
        raise
    return decoded(found.get("data")) if kind == "secrets" else dict(found.get("data") or {})


def referenced_names(container: Json) -> tuple[set[str], set[str]]:
    """Return the names of the ConfigMaps and of the Secrets that a container's variables come from."""
    maps, secrets = set(), set()
    for source in container.get("envFrom") or []:
        maps |= _names(source, "configMapRef")
        secrets |= _names(source, "secretRef")
    for entry in container.get("env") or []:
        origin = entry.get("valueFrom") or {}
        maps |= _names(origin, "configMapKeyRef")
        secrets |= _names(origin, "secretKeyRef")
    return maps, secrets


def _names(origin: Json, key: str) -> set[str]:
    return {origin[key]["name"]} if origin.get(key) else set()


def _hosts(pod: Json, address: str) -> str:
    lines = ["# made by the local node", "127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost"]
    lines.append(f"{address}\t{pod['spec'].get('hostname') or pod['metadata']['name']}")
    lines += [f"{entry['ip']}\t{' '.join(entry.get('hostnames') or [])}" for entry in _aliases(pod)]
    return "\n".join(lines) + "\n"


def _aliases(pod: Json) -> Iterable[Json]:
    return pod["spec"].get("hostAliases") or ()
