"""Work out a container's environment variables, command and arguments as the kubelet does. Pure.

The semantics are those of the Kubernetes API reference of `EnvVar` and `Container.command`: `$(NAME)` refers
to a variable defined before, `$$` escapes, an unknown reference stays as it is. It must never read the node's
own environment: a container gets nothing that its pod or its image entry does not name.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_REFERENCE = re.compile(r"\$(\$|\(([^()]*)\))?")
_VARIABLE = re.compile(r"^[-._a-zA-Z][-._a-zA-Z0-9]*$")


class MissingReference(Exception):
    """A ConfigMap, Secret or key that a container needs does not exist (yet); the message names it."""


@dataclass(frozen=True, slots=True)
class Lookups:
    """What the environment may be taken from: the pod, and the data of the ConfigMaps and Secrets that exist.

    `config_maps` and `secrets` map a name to its `data`; Secrets are decoded already.
    """

    pod: Mapping[str, Any]
    config_maps: Mapping[str, Mapping[str, str]]
    secrets: Mapping[str, Mapping[str, str]]


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace `$(NAME)` by its value where it is known, and `$$` by `$`."""

    def replace(match: re.Match[str]) -> str:
        if match.group(1) == "$":
            return "$"
        if match.group(2) is not None and match.group(2) in variables:
            return variables[match.group(2)]
        return match.group(0)

    return _REFERENCE.sub(replace, text)


def container_environment(
    container: Mapping[str, Any], base: Mapping[str, str], lookups: Lookups
) -> dict[str, str]:
    """Return all variables: `base` (image, service links), then `envFrom`, then `env`, later ones winning.

    Raises `MissingReference` for a reference that is neither there nor optional, and `ValueError` for a field
    path that does not exist.
    """
    variables = dict(base)
    for source in container.get("envFrom") or []:
        variables.update(_env_from(source, lookups))
    for entry in container.get("env") or []:
        value = _env_value(entry, variables, lookups)
        if value is not None:
            variables[entry["name"]] = value
    return variables


def expanded_command(
    container: Mapping[str, Any], image_command: Iterable[str], variables: Mapping[str, str]
) -> list[str]:
    """Return command and arguments; `command` replaces the image's own, `args` follow either."""
    command = container.get("command") or list(image_command)
    return [expand(word, variables) for word in [*command, *(container.get("args") or [])]]


def field_value(pod: Mapping[str, Any], path: str) -> str:
    """Return what a `fieldRef` path names in a pod; an absent label or annotation is the empty string."""
    metadata = pod["metadata"]
    keyed = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
    if keyed:
        return str((metadata.get(keyed[1]) or {}).get(keyed[2], ""))
    status = pod.get("status", {})
    values = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": pod["spec"].get("nodeName", ""),
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName", "default"),
        "status.hostIP": status.get("hostIP", ""),
        "status.hostIPs": status.get("hostIP", ""),
        "status.podIP": status.get("podIP", ""),
        "status.podIPs": status.get("podIP", ""),
    }
    if path in values:
        return str(values[path])
    if path in ("metadata.labels", "metadata.annotations"):
        entries = sorted((metadata.get(path.removeprefix("metadata.")) or {}).items())
        return "\n".join(f'{key}="{_escaped(value)}"' for key, value in entries)
    raise ValueError(f"fieldRef {path}: there is no such field")


def decoded(data: Mapping[str, str] | None) -> dict[str, str]:
    """Return a Secret's data as text."""
    return {key: base64.b64decode(value).decode() for key, value in (data or {}).items()}


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _env_from(source: Mapping[str, Any], lookups: Lookups) -> dict[str, str]:
    reference, known, kind = (
        (source["configMapRef"], lookups.config_maps, "configmap")
        if source.get("configMapRef")
        else (source["secretRef"], lookups.secrets, "secret")
    )
    data = known.get(reference["name"])
    if data is None:
        if reference.get("optional"):
            return {}
        raise MissingReference(f'{kind} "{reference["name"]}" not found')
    prefix = source.get("prefix") or ""
    return {prefix + key: value for key, value in data.items() if _VARIABLE.match(prefix + key)}


def _env_value(entry: Mapping[str, Any], variables: Mapping[str, str], lookups: Lookups) -> str | None:
    origin = entry.get("valueFrom")
    if not origin:
        return expand(entry.get("value") or "", variables)
    if "fieldRef" in origin:
        return field_value(lookups.pod, origin["fieldRef"]["fieldPath"])
    if "configMapKeyRef" in origin:
        return _key_value(origin["configMapKeyRef"], lookups.config_maps, "configmap")
    return _key_value(origin["secretKeyRef"], lookups.secrets, "secret")


def _key_value(reference: Mapping[str, Any], known: Mapping[str, Mapping[str, str]], kind: str) -> str | None:
    data = known.get(reference["name"])
    if data is not None and reference["key"] in data:
        return data[reference["key"]]
    if reference.get("optional"):
        return None
    if data is None:
        raise MissingReference(f'{kind} "{reference["name"]}" not found')
    raise MissingReference(f"couldn't find key {reference['key']} in {kind} {reference['name']}")
