"""Which GPUs a node has, from its labels and what it offers, in a fixed order of evidence.

GPU feature discovery is believed first, then the labels of Karpenter and EKS, then GKE's. A node whose GPUs
cannot be told apart, are shared, or are cut into slices gets a refusal that names it: planning on a guess
ends in a server that runs out of memory. Pure: it looks at labels and resource amounts only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.hardware.catalog import catalog, find_gpu, how_to_add, nearest_names
from stowage.hardware.gpu import Gpu
from stowage.hardware.gpu_identity import NVIDIA_GPU, GpuIdentity, GroupKey, LabelledNode, Sharing
from stowage.hardware.gpu_sharing import on_request, sliced_or_shared

__all__ = [
    "NVIDIA_GPU",
    "GpuIdentity",
    "GroupKey",
    "LabelledNode",
    "Sharing",
    "identify_gpus",
    "on_request",
]

_PRODUCT: Final = "nvidia.com/gpu.product"
_GKE: Final = "cloud.google.com/gke-accelerator"
_KARPENTER: Final = ("karpenter.k8s.aws/", "eks.amazonaws.com/")
_MIB: Final = 2**20
_OTHER_ACCELERATORS: Final[Mapping[str, str]] = {
    "habana.ai/gaudi": "Intel Gaudi",
    "aws.amazon.com/neuron": "AWS Neuron",
    "google.com/tpu": "Google TPU",
}
_HOW_TO_LABEL: Final = (
    "Install GPU feature discovery, or label the node by hand: kubectl label node {node} "
    "nvidia.com/gpu.product=NVIDIA-L4 nvidia.com/gpu.count={count} (with its true product)."
)


@dataclass(frozen=True, slots=True)
class _Claim:
    """What one kind of labels says: a product, and the number of devices if it says one."""

    product: str
    gpu: Gpu | None
    count: int | None
    evidence: str
    selector: Mapping[str, str]
    memory_mib: int | None = None


def identify_gpus(node: LabelledNode) -> GpuIdentity | Refusal | None:
    """Tell the GPUs of a node, None where it has none, or why they cannot be planned with."""
    for look in (_nvidia, _amd, _intel, _other):
        found = look(node)
        if found is not None:
            return found
    return None


def _nvidia(node: LabelledNode) -> GpuIdentity | Refusal | None:
    offered = node.capacity.count(NVIDIA_GPU) or node.allocatable.count(NVIDIA_GPU)
    product = node.labels.get(_PRODUCT)
    sliced = sliced_or_shared(node)
    if sliced is not None:
        return sliced
    if not offered:
        return None if product is None else _not_offered(node, product)
    claim = _gfd_claim(node) or _karpenter_claim(node) or _gke_claim(node)
    if claim is None:
        return _unlabelled(node, offered, NVIDIA_GPU)
    if claim.gpu is None:
        return _unknown_product(node, claim.product)
    if claim.count is not None and claim.count != offered:
        return Refusal(
            Reason.UNKNOWN_GPU,
            f"Node {node.name} is ambiguous (AmbiguousGPUs): its labels say {claim.count}x {claim.product} "
            f"but it offers {offered} {NVIDIA_GPU}, as nodes with mixed GPU models do.",
            "Keep one GPU model per node, or leave the node out by spec.hardware.nodeSelector.",
        )
    ratio_total = claim.gpu.cuda_total_bytes
    if claim.memory_mib:
        ratio_total = claim.memory_mib * _MIB * claim.gpu.cuda_total_bytes // claim.gpu.nvml_memory_bytes
    return GpuIdentity(
        claim.gpu, node.allocatable.count(NVIDIA_GPU), NVIDIA_GPU, claim.evidence, ratio_total, claim.selector
    )


def _gfd_claim(node: LabelledNode) -> _Claim | None:
    product = node.labels.get(_PRODUCT)
    if not product:
        return None
    return _Claim(
        product,
        find_gpu(product),
        _integer(node.labels.get("nvidia.com/gpu.count")),
        f"label {_PRODUCT} (GPU feature discovery)",
        {_PRODUCT: product},
        _integer(node.labels.get("nvidia.com/gpu.memory")),
    )


def _karpenter_claim(node: LabelledNode) -> _Claim | None:
    names = catalog().karpenter
    for prefix in _KARPENTER:
        key, memory_key = f"{prefix}instance-gpu-name", f"{prefix}instance-gpu-memory"
        product = node.labels.get(key)
        if not product:
            continue
        memory = node.labels.get(memory_key, "")
        exact = names.get(f"{product}:{memory}")
        name = exact or names.get(product)
        selector = {key: product, memory_key: memory} if exact else {key: product}
        count = _integer(node.labels.get(f"{prefix}instance-gpu-count"))
        return _Claim(product, find_gpu(name) if name else None, count, f"label {key}", selector)
    return None


def _gke_claim(node: LabelledNode) -> _Claim | None:
    product = node.labels.get(_GKE)
    if not product:
        return None
    name = catalog().gke.get(product)
    count = _integer(node.labels.get(f"{_GKE}-count"))
    return _Claim(product, find_gpu(name) if name else None, count, f"label {_GKE}", {_GKE: product})


def _amd(node: LabelledNode) -> GpuIdentity | Refusal | None:
    resource = "amd.com/gpu"
    offered = node.allocatable.count(resource)
    if not node.capacity.count(resource) and not offered:
        return None
    for key in ("amd.com/gpu.product-name", "beta.amd.com/gpu.product-name"):
        if product := node.labels.get(key):
            return _foreign(node, product, resource, offered, key)
    return _unlabelled(node, offered, resource)


def _intel(node: LabelledNode) -> GpuIdentity | Refusal | None:
    for resource in ("gpu.intel.com/xe", "gpu.intel.com/i915"):
        offered = node.allocatable.count(resource)
        if offered:
            key = "gpu.intel.com/product"
            product = node.labels.get(key)
            return (
                _foreign(node, product, resource, offered, key)
                if product
                else _unlabelled(node, offered, resource)
            )
    return None


def _other(node: LabelledNode) -> Refusal | None:
    for resource, what in _OTHER_ACCELERATORS.items():
        if node.capacity.count(resource) or node.allocatable.count(resource):
            return _refuse(
                node, f"has {what} accelerators ({resource}), which this version does not plan with"
            )
    return None


def _foreign(node: LabelledNode, product: str, resource: str, count: int, key: str) -> GpuIdentity | Refusal:
    gpu = find_gpu(product)
    if gpu is None:
        return _unknown_product(node, product)
    return GpuIdentity(gpu, count, resource, f"label {key}", gpu.cuda_total_bytes, {key: product})


def _not_offered(node: LabelledNode, product: str) -> Refusal:
    return Refusal(
        Reason.INSUFFICIENT_GPUS,
        f"Node {node.name} is labelled {product} but offers no {NVIDIA_GPU}: its device plugin does not run.",
        "Check the NVIDIA device plugin's pod on that node.",
    )


def _unlabelled(node: LabelledNode, count: int, resource: str) -> Refusal:
    return Refusal(
        Reason.UNKNOWN_GPU,
        f"Node {node.name} offers {count} {resource} but no label says which GPU model they are.",
        _HOW_TO_LABEL.format(node=node.name, count=count),
    )


def _unknown_product(node: LabelledNode, product: str) -> Refusal:
    near = nearest_names(product)
    similar = f" Similar known names: {', '.join(near)}." if near else ""
    return Refusal(
        Reason.UNKNOWN_GPU,
        f"Node {node.name} has the GPU {product}, which the catalog does not have.{similar}",
        how_to_add(product),
    )


def _refuse(node: LabelledNode, what: str) -> Refusal:
    return Refusal(
        Reason.UNSUPPORTED_GPU,
        f"Node {node.name} {what}.",
        "Use nodes with whole, exclusive GPUs, or leave the node out by spec.hardware.nodeSelector.",
    )


def _integer(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None
