"""Describe to a stand-in which GPUs its container holds, from the labels of the node that it runs on. Pure.

The description goes into `STOWAGE_SIMULATED_GPUS`, which the fake `nvidia-smi` prints. A container gets it only with
an image that is a stand-in; the real engine must never be told of GPUs that do not exist.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from e2e.localnode.inventory import NodeManifest, is_gpu_resource

VARIABLE = "STOWAGE_SIMULATED_GPUS"
PRODUCT_ANNOTATION = "localnode.stowage.dev/nvml-name"
CARD_MEMORY_ANNOTATION = "localnode.stowage.dev/card-memory-mib"
_NVIDIA = "nvidia.com/"
_MIXED_SLICE = f"{_NVIDIA}mig-"


def held_gpus(container: Mapping[str, Any]) -> dict[str, int]:
    """Return how many GPUs (or slices) of which resource a container holds."""
    resources = container.get("resources") or {}
    wanted = {**(resources.get("requests") or {}), **(resources.get("limits") or {})}
    return {name: int(count) for name, count in wanted.items() if is_gpu_resource(name) and int(count)}


def describe_gpus(node: NodeManifest, container: Mapping[str, Any]) -> str | None:
    """Return what `nvidia-smi` would know of a container's GPUs, as JSON; None where it would show none.

    Facts that the node has no label for are empty or 0. `mig_profile` is set where the GPUs are slices; their card's
    memory is then what the annotation says, because that is what the real tool prints.
    """
    held = {name: count for name, count in held_gpus(container).items() if name.startswith(_NVIDIA)}
    if not held:
        return None
    name, count = next(iter(held.items()))
    label, profile = _slice(node, name)
    facts: dict[str, Any] = {
        "product": node.annotations.get(PRODUCT_ANNOTATION) or label.replace("-", " "),
        "memory_mib": int(node.annotations.get(CARD_MEMORY_ANNOTATION) or _label(node, "gpu.memory") or 0),
        "count": count,
        "compute_capability": _dotted(_label(node, "gpu.compute.major"), _label(node, "gpu.compute.minor")),
        "driver_version": _label(node, "cuda.driver-version.full"),
    }
    if profile:
        facts["mig_profile"] = profile
    return json.dumps(facts, sort_keys=True)


def _slice(node: NodeManifest, resource: str) -> tuple[str, str]:
    """Return the product without the suffixes of sharing and slicing, and the slice's profile."""
    product, _, profile = _label(node, "gpu.product").removesuffix("-SHARED").partition("-MIG-")
    return product, resource.removeprefix(_MIXED_SLICE) if resource.startswith(_MIXED_SLICE) else profile


def _label(node: NodeManifest, name: str) -> str:
    return node.labels.get(_NVIDIA + name, "")


def _dotted(*parts: str) -> str:
    return ".".join(part for part in parts if part)
