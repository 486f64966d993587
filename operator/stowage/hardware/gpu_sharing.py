"""GPUs that are cut into slices (MIG) or that several pods take turns on (time-slicing, MPS).

Such devices are never used unasked: slices have no path to each other, and pods that share a GPU have no memory
of their own. A node that has them is refused with a sentence, and what it offers is kept for deployments that
name the device in spec.hardware.gpus, as in `NVIDIA-A100-SXM4-80GB-MIG-1g.10gb` or `Tesla-T4-SHARED`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, Final

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.hardware.catalog import find_gpu
from stowage.hardware.gpu import Gpu
from stowage.hardware.gpu_identity import NVIDIA_GPU, GpuIdentity, LabelledNode, Sharing

_PRODUCT: Final = "nvidia.com/gpu.product"
_SHARED_GPU: Final = "nvidia.com/gpu.shared"
_MIG_PREFIX: Final = "nvidia.com/mig-"
_SHARED_SUFFIX: Final = "-SHARED"
_GKE_PARTITION: Final = "cloud.google.com/gke-gpu-partition-size"
_GKE_SHARING: Final = "cloud.google.com/gke-gpu-sharing-strategy"
_PROFILE: Final = re.compile(r"(?P<slices>[1-7])g\.(?P<gigabytes>\d+)gb(?:\.me|\+me)?", re.ASCII)
_MIB: Final = 2**20
_GIB: Final = 2**30
# Most GPUs have seven compute slices, and memory is cut by eighths. NVIDIA, MIG user guide, "Supported MIG profiles".
_COMPUTE_SLICES: Final = 7
_FEWER_COMPUTE_SLICES: Final[Mapping[str, int]] = {
    "NVIDIA-A30": 4,
    "NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition": 4,
    "NVIDIA-RTX-PRO-6000-Blackwell-Workstation-Edition": 4,
}
_MEMORY_SLICES: Final = 8
# Slices have no path to each other. One byte per second makes whatever would need one come out hopeless.
_NO_LINK: Final = 1


def find_device(name: str) -> Gpu | None:
    """Find what one requested device is by its product label: a GPU, a MIG slice of one, or a shared one.

    A slice has its share of the whole GPU's peaks and no link to speak of; None where the catalog has no such GPU.
    """
    whole, _, profile = name.partition("-MIG-")
    if profile:
        gpu, match = find_gpu(whole), _PROFILE.fullmatch(profile)
        return _slice(gpu, name, match) if gpu is not None and match is not None else None
    if name.upper().endswith(_SHARED_SUFFIX):
        gpu = find_gpu(name[: -len(_SHARED_SUFFIX)])
        return None if gpu is None else replace(gpu, name=f"{gpu.name}{_SHARED_SUFFIX}", aliases=())
    return find_gpu(name)


def sliced_or_shared(node: LabelledNode) -> Refusal | None:
    """Refuse a node whose GPUs are not whole and exclusive; None for all other nodes."""
    labels, product = node.labels, node.labels.get(_PRODUCT, "")
    slices = sorted(_slice_resources(node))
    if "-MIG-INVALID" in product:
        return _refuse(
            node, "has an invalid MIG configuration (some GPUs with MIG enabled, some without)", ()
        )
    state = labels.get("nvidia.com/mig.config.state", "success")
    if state != "success":
        return _refuse(node, f"is being repartitioned (nvidia.com/mig.config.state={state})", ())
    names = tuple(each.gpu.name for each in on_request(node))
    if "-MIG-" in product or slices or labels.get(_GKE_PARTITION):
        what = product if "-MIG-" in product else ", ".join(slices) or "partitioned GPUs"
        return _refuse(
            node,
            f"offers MIG slices ({what}); slices have no path to each other and are not planned with unasked",
            names,
        )
    if _is_shared(node, product):
        return _refuse(
            node,
            "shares its GPUs between pods (SharedGPU: time-slicing or MPS), so no pod has memory of its own",
            names,
        )
    return None


def on_request(node: LabelledNode) -> tuple[GpuIdentity, ...]:
    """What the node offers to deployments that name it: MIG slices and time-sliced GPUs of known models.

    GPUs shared by MPS are not among them: how much memory an engine would find there has not been measured.
    """
    if node.labels.get("nvidia.com/mig.config.state", "success") != "success":
        return ()
    return tuple(_offers(node, node.labels.get(_PRODUCT, "")))


def _offers(node: LabelledNode, product: str) -> Iterator[GpuIdentity]:
    if "-MIG-" in product:
        yield from _identity(node, product, NVIDIA_GPU, "nvidia.com/gpu.memory", {_PRODUCT: product})
        return
    for resource in sorted(_slice_resources(node)):
        label = f"{resource}.product"
        name = f"{product}-MIG-{resource.removeprefix(_MIG_PREFIX)}"
        selector = {label: node.labels[label]} if label in node.labels else {_PRODUCT: product}
        yield from _identity(node, name, resource, f"{resource}.memory", selector)
    if product and _is_shared(node, product) and not _slice_resources(node):
        yield from _time_sliced(node, product)


def _identity(
    node: LabelledNode, name: str, resource: str, memory_label: str, selector: Mapping[str, str]
) -> Iterator[GpuIdentity]:
    gpu, memory = find_device(name), node.labels.get(memory_label, "")
    if gpu is not None:
        total = gpu.cuda_total_bytes
        if memory.isascii() and memory.isdigit():
            total = int(memory) * _MIB * gpu.cuda_total_bytes // gpu.nvml_memory_bytes
        count = node.allocatable.count(resource)
        yield GpuIdentity(gpu, count, resource, f"label {_PRODUCT} (MIG)", total, selector, Sharing.SLICE)


def _time_sliced(node: LabelledNode, product: str) -> Iterator[GpuIdentity]:
    labels = node.labels
    gpu = find_device(f"{product.removesuffix(_SHARED_SUFFIX)}{_SHARED_SUFFIX}")
    replicas = labels.get("nvidia.com/gpu.replicas", "")
    if gpu is None or not replicas.isdigit() or int(replicas) < 2:
        return
    if labels.get("nvidia.com/gpu.sharing-strategy", "time-slicing") != "time-slicing":
        return
    resource = _SHARED_GPU if node.capacity.count(_SHARED_GPU) else NVIDIA_GPU
    memory = labels.get("nvidia.com/gpu.memory", "")
    total = gpu.cuda_total_bytes
    if memory.isascii() and memory.isdigit():
        total = int(memory) * _MIB * gpu.cuda_total_bytes // gpu.nvml_memory_bytes
    yield GpuIdentity(
        gpu,
        node.allocatable.count(resource),
        resource,
        f"label {_PRODUCT} (time-slicing, {replicas} pods per GPU)",
        total,
        {_PRODUCT: product, "nvidia.com/gpu.replicas": replicas},
        Sharing.SHARED,
        int(replicas),
    )


def _slice(gpu: Gpu, name: str, profile: re.Match[str]) -> Gpu:
    """Give the share of a whole GPU that a profile has, of compute by its slices, of bandwidth by its memory."""
    compute = min(1.0, int(profile["slices"]) / _FEWER_COMPUTE_SLICES.get(gpu.name, _COMPUTE_SLICES))
    eighths = round(int(profile["gigabytes"]) * _GIB * _MEMORY_SLICES / gpu.nvml_memory_bytes)
    memory = min(max(eighths, 1), _MEMORY_SLICES) / _MEMORY_SLICES
    peaks: dict[str, Any] = {}
    for each in fields(gpu):
        value = getattr(gpu, each.name)
        if each.name.endswith(("_flops", "_ops")) and value is not None:
            peaks[each.name] = int(value * compute)
    return replace(
        gpu,
        name=name,
        aliases=(),
        nvml_memory_bytes=int(gpu.nvml_memory_bytes * memory),
        cuda_total_bytes=int(gpu.cuda_total_bytes * memory),
        cuda_total_measured=False,
        memory_bytes_per_second=int(gpu.memory_bytes_per_second * memory),
        link="none",
        link_bytes_per_second=_NO_LINK,
        **peaks,
    )


def _slice_resources(node: LabelledNode) -> tuple[str, ...]:
    offered = node.capacity.extended.items()
    return tuple(name for name, amount in offered if name.startswith(_MIG_PREFIX) and amount)


def _is_shared(node: LabelledNode, product: str) -> bool:
    labels = node.labels
    replicas = labels.get("nvidia.com/gpu.replicas", "")
    return (
        product.endswith(_SHARED_SUFFIX)
        or labels.get("nvidia.com/gpu.sharing-strategy", "none") not in ("none", "")
        or (replicas.isascii() and replicas.isdigit() and int(replicas) > 1)
        or node.capacity.count(_SHARED_GPU) > 0
        or bool(labels.get(_GKE_SHARING))
    )


def _refuse(node: LabelledNode, what: str, names: tuple[str, ...]) -> Refusal:
    hint = "Use nodes with whole, exclusive GPUs, or leave the node out by spec.hardware.nodeSelector."
    if names:
        hint = f"Use nodes with whole, exclusive GPUs, or name {' or '.join(names)} in spec.hardware.gpus."
    return Refusal(Reason.UNSUPPORTED_GPU, f"Node {node.name} {what}.", hint)
