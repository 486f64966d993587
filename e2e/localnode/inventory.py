"""Read Node manifests as `kubectl get nodes -o yaml` prints them, and make them objects to create.

A capacity may say `auto` for cpu, memory or ephemeral-storage: then it is what this machine has. What the API
server and a kubelet own (uid, status conditions, …) is left out. It must never invent GPUs.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

GPU_RESOURCES = (
    "nvidia.com/gpu",
    "nvidia.com/gpu.shared",
    "nvidia.com/mig-",
    "amd.com/gpu",
    "gpu.intel.com/",
)
_SERVER_OWNED = (
    "status",
    "openshift.io",
    "kubectl.kubernetes.io/last-applied-configuration",
    "volumes.kubernetes.io",
)


class InventoryError(Exception):
    """A manifest is not a Node that can be played; the message names file, node and field."""


@dataclass(frozen=True, slots=True)
class NodeManifest:
    """One node to play: what its object says, with `capacity` and `allocatable` as quantities."""

    name: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    taints: tuple[Mapping[str, str], ...]
    capacity: Mapping[str, str]
    allocatable: Mapping[str, str]
    unschedulable: bool = False

    @property
    def has_gpus(self) -> bool:
        """Whether it offers any GPU resource; those GPUs are always simulated here."""
        return any(is_gpu_resource(name) for name in self.allocatable)


def is_gpu_resource(name: str) -> bool:
    """Whether an extended resource stands for GPUs."""
    return any(name == known or (known[-1] in "-/" and name.startswith(known)) for known in GPU_RESOURCES)


def load_inventory(files: Iterable[Path]) -> list[NodeManifest]:
    """Read all nodes of all files (YAML documents and Lists); raises `InventoryError` for anything else."""
    nodes: list[NodeManifest] = []
    for file in files:
        for document in yaml.safe_load_all(file.read_text()):
            nodes += [_node(item, str(file)) for item in _items(document, str(file))]
    names = [node.name for node in nodes]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InventoryError(f"the node name {twice[0]} occurs twice; node names must be unique")
    return nodes


def _items(document: Any, file: str) -> list[dict[str, Any]]:
    if document is None:
        return []
    if not isinstance(document, dict) or document.get("kind") not in ("Node", "List", "NodeList"):
        raise InventoryError(f"{file}: expected kind Node or List")
    return document.get("items") or [] if document["kind"] != "Node" else [document]


def _node(item: Mapping[str, Any], file: str) -> NodeManifest:
    metadata = item.get("metadata") or {}
    name = metadata.get("name")
    if item.get("kind", "Node") != "Node" or not name:
        raise InventoryError(f"{file}: an item is no Node with a metadata.name")
    status = item.get("status") or {}
    capacity = status.get("capacity") or status.get("allocatable")
    if not capacity:
        raise InventoryError(f"{file}: node {name} has no status.capacity")
    labels = metadata.get("labels") or {}
    for key, value in {**labels, **capacity}.items():
        if not isinstance(value, str):
            raise InventoryError(f"{file}: node {name}: {key}: {value!r} must be written as a string")
    spec = item.get("spec") or {}
    return NodeManifest(
        name=name,
        labels={
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
            **labels,
        },
        annotations={
            key: value
            for key, value in (metadata.get("annotations") or {}).items()
            if not key.startswith(_SERVER_OWNED)
        },
        taints=tuple(spec.get("taints") or ()),
        capacity=_measured(capacity),
        allocatable=_measured({**capacity, **(status.get("allocatable") or {})}),
        unschedulable=bool(spec.get("unschedulable")),
    )


def _measured(quantities: Mapping[str, str]) -> dict[str, str]:
    """Replace every `auto` by what this machine has."""
    return {key: _measure(key) if value == "auto" else value for key, value in quantities.items()}


def _measure(resource: str) -> str:
    if resource == "cpu":
        return str(len(os.sched_getaffinity(0)))
    if resource == "memory":
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 1024}Ki"
    if resource == "ephemeral-storage":
        return f"{shutil.disk_usage('/').total // 1024}Ki"
    raise InventoryError(f"{resource}: auto is possible for cpu, memory and ephemeral-storage only")
