"""Reads declared node pools from plain data, as YAML gives it, and says in one sentence what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from stowage.hardware.catalog import find_gpu, nearest_names
from stowage.hardware.gpu import Gpu
from stowage.hardware.gpu_identity import GpuIdentity, LabelledNode
from stowage.hardware.gpu_labels import identify_gpus
from stowage.hardware.node import NodeFacts
from stowage.hardware.pools import Pool, name_to_come
from stowage.hardware.resources import QuantityError, Resources, parse_resources
from stowage.hardware.taints import Taint

_RESOURCES: Final[Mapping[str, str]] = {
    "NVIDIA": "nvidia.com/gpu",
    "AMD": "amd.com/gpu",
    "Intel": "gpu.intel.com/xe",
}
_NAME: Final = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,61}[a-z0-9])?", re.ASCII)
_EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_REQUIRED: Final = ("name", "gpu", "gpusPerNode", "maxNodes", "labels", "cpu", "memory")
_OPTIONAL: Final = ("taints",)
_MOST_GPUS: Final = 72
_MOST_NODES: Final = 1000
# What the kubelet allows where nobody says otherwise.
_POD_SLOTS: Final = 110


class PoolError(ValueError):
    """A declaration that cannot be used; the message is one sentence for people."""


def read_pools(data: Any) -> tuple[Pool, ...]:
    """Read the list under `pools:`. Raises PoolError naming the field, its value and what to write instead."""
    if not isinstance(data, list):
        raise PoolError(f"pools is {_shown(data)}; write a list of pools.")
    found: list[Pool] = []
    for index, row in enumerate(data):
        pool = _pool(row, f"pools[{index}]")
        if any(pool.name == other.name for other in found):
            raise PoolError(
                f"pools[{index}].name is {pool.name}, as that of an earlier pool; give each its own."
            )
        found.append(pool)
    return tuple(found)


def _pool(row: Any, where: str) -> Pool:
    if not isinstance(row, dict):
        raise PoolError(f"{where} is {_shown(row)}; write a pool with {', '.join(_REQUIRED)}.")
    for key in row:
        if key not in (*_REQUIRED, *_OPTIONAL):
            known = ", ".join((*_REQUIRED, *_OPTIONAL))
            raise PoolError(f"{where}.{key} is not a field of a pool; use {known}.")
    for key in _REQUIRED:
        if key not in row:
            raise PoolError(f"{where}.{key} is missing; add it.")
    name, gpu, labels = _name(row, where), _gpu(row, where), _labels(row, where)
    count, most = (
        _number(row, where, "gpusPerNode", 1, _MOST_GPUS),
        _number(row, where, "maxNodes", 0, _MOST_NODES),
    )
    resource = _RESOURCES.get(gpu.vendor, _RESOURCES["NVIDIA"])
    allocatable = _allocatable(row, where, resource, count)
    gpus = _identity(LabelledNode(name, labels, allocatable, allocatable), gpu, resource, where)
    taints = tuple(_taints(row.get("taints", []), f"{where}.taints"))
    to_come = tuple(
        NodeFacts(name_to_come(name, number), labels, taints, False, True, allocatable, gpus, None, (), name)
        for number in range(1, most + 1)
    )
    return Pool(name, gpus, most, labels, to_come)


def _identity(node: LabelledNode, gpu: Gpu, resource: str, where: str) -> GpuIdentity:
    """Pick the nodes as present ones of this kind are picked, where the declared labels say as much."""
    evidence, count = f"the declaration of pool {node.name}", node.allocatable.count(resource)
    found = identify_gpus(node)
    if not isinstance(found, GpuIdentity):
        return GpuIdentity(gpu, count, resource, evidence, gpu.cuda_total_bytes, node.labels)
    if found.gpu.name != gpu.name:
        raise PoolError(
            f"{where}.gpu is {gpu.name}, but {where}.labels say {found.gpu.name}; correct one of them."
        )
    return GpuIdentity(gpu, count, resource, evidence, found.total_memory_bytes, found.node_selector)


def _name(row: Mapping[str, Any], where: str) -> str:
    name = row["name"]
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise PoolError(
            f"{where}.name is {_shown(name)}; write up to 63 lower-case letters, digits, dashes and dots."
        )
    return name


def _gpu(row: Mapping[str, Any], where: str) -> Gpu:
    gpu = find_gpu(str(row["gpu"]))
    if gpu is None:
        near = (
            ", ".join(nearest_names(str(row["gpu"]))) or "the value of a node's label nvidia.com/gpu.product"
        )
        raise PoolError(f"{where}.gpu is {_shown(row['gpu'])}, which the catalog does not have; try {near}.")
    return gpu


def _number(row: Mapping[str, Any], where: str, key: str, least: int, most: int) -> int:
    value = row[key]
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise PoolError(f"{where}.{key} is {_shown(value)}; write a whole number from {least} to {most}.")
    return value


def _labels(row: Mapping[str, Any], where: str) -> dict[str, str]:
    labels = row["labels"]
    if not isinstance(labels, dict) or not labels:
        raise PoolError(
            f"{where}.labels is {_shown(labels)}; write the labels by which its nodes are told from others."
        )
    for key, value in labels.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise PoolError(
                f"{where}.labels has {key}: {_shown(value)}, which is not text; put it in quotes."
            )
    return dict(sorted(labels.items()))


def _taints(taints: Any, where: str) -> Iterable[Taint]:
    if not isinstance(taints, list):
        raise PoolError(f"{where} is {_shown(taints)}; write a list of taints with key, value and effect.")
    for index, taint in enumerate(taints):
        key = taint.get("key") if isinstance(taint, dict) else None
        if not isinstance(key, str) or taint.get("effect") not in _EFFECTS:
            raise PoolError(
                f"{where}[{index}] is {_shown(taint)}; write key, value and an effect of {', '.join(_EFFECTS)}."
            )
        yield Taint(key, str(taint.get("value") or ""), taint["effect"])


def _allocatable(row: Mapping[str, Any], where: str, resource: str, gpus: int) -> Resources:
    try:
        amounts = parse_resources({key: row[key] for key in ("cpu", "memory")})
    except QuantityError as error:
        raise PoolError(f"{where}: {error}") from None
    for key, amount in (("cpu", amounts.cpu_millicores), ("memory", amounts.memory_bytes)):
        if amount <= 0:
            raise PoolError(f"{where}.{key} is {_shown(row[key])}; write what pods can have of one node.")
    return Resources(amounts.cpu_millicores, amounts.memory_bytes, _POD_SLOTS, {resource: gpus})


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else "nothing" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
