"""Which GPUs come into question: the nodes of the snapshot in groups, and what rules a whole group out.

A group gathers the nodes whose GPUs are the same model and are picked by the same labels, since one node
selector must be able to reach them all. What rules a whole group out before any memory is computed is
decided here too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.api.v1alpha1 import LLMDeploymentSpec
from stowage.hardware.best_fit import Arranged, arrange
from stowage.hardware.catalog import how_to_add, nearest_names
from stowage.hardware.gpu import Gpu
from stowage.hardware.gpu_labels import NVIDIA_GPU, GroupKey, Sharing
from stowage.hardware.gpu_sharing import find_device
from stowage.hardware.inventory import Inventory
from stowage.hardware.room import NodeRoom, closed, matches_selector
from stowage.hardware.taints import Toleration
from stowage.memory.device import DeviceMemory
from stowage.model.profile import ModelProfile
from stowage.planning.placement import tolerations_of

# vLLM's CUDA builds hold no kernels for older devices.
_OLDEST_CAPABILITY: Final = (7, 5)


@dataclass(frozen=True, slots=True)
class GpuGroup:
    """Nodes with the same GPU model that one node selector reaches.

    `total_memory_bytes` is what CUDA sees on the smallest device of the group; `nodes` is empty for a
    hypothetical group, which stands for nodes that could be bought. `exclusive` is False where a device is a slice
    of a GPU or shared by up to `pods_per_gpu` pods. `arranged` are those of the
    nodes that the spec's pods may go to, as `places` takes them fastest.
    """

    gpu: Gpu
    resource_name: str
    evidence: str
    node_selector: Mapping[str, str]
    total_memory_bytes: int
    nodes: tuple[NodeRoom, ...] = ()
    pods_per_gpu: int = 1
    exclusive: bool = True
    arranged: Arranged | None = field(default=None, compare=False, repr=False)

    @property
    def most_gpus_on_a_node(self) -> int:
        """GPUs of the largest node that one replica can use: slices and shared GPUs do not work together."""
        most = max((node.total_gpus for node in self.nodes), default=0)
        return most if self.exclusive else min(most, 1)

    @property
    def device(self) -> DeviceMemory:
        """One GPU as the memory model sees it."""
        return DeviceMemory.of_gpu(self.gpu, self.total_memory_bytes)


def gpu_groups(inventory: Inventory, spec: LLMDeploymentSpec) -> tuple[GpuGroup, ...]:
    """Group the nodes that the spec's node selector allows, in order of GPU name.

    A node is in every group whose labels it carries: nodes of a pool are found by the pool's labels and by their
    GPU's product alike.
    """
    selector = spec.hardware.node_selector
    found: dict[GroupKey, list[NodeRoom]] = {}
    for node in inventory.nodes:
        gpus = node.facts.gpus
        if gpus is not None and matches_selector(node.facts, selector):
            found.setdefault(gpus.group_key, []).append(node)
    tolerations = tolerations_of(spec, True)
    return tuple(_group(key, nodes, found, tolerations) for key, nodes in sorted(found.items()))


def hypothetical_group(gpu: Gpu) -> GpuGroup:
    """Stand for nodes with this GPU that the cluster does not have."""
    return GpuGroup(gpu, NVIDIA_GPU, "catalog", {}, gpu.cuda_total_bytes)


def unknown_gpu(spec: LLMDeploymentSpec) -> Refusal | None:
    """Refuse a name in spec.hardware.gpus that the catalog does not have."""
    for name in spec.hardware.gpus:
        if find_device(name) is None:
            near = ", ".join(nearest_names(name))
            return Refusal(
                Reason.UNKNOWN_GPU,
                f"spec.hardware.gpus names {name}, which is not a GPU that this version knows.",
                f"Did you mean {near}? {how_to_add(name)}"
                if near
                else f"Use the value of a node's label nvidia.com/gpu.product. {how_to_add(name)}",
            )
    return None


def excluded(group: GpuGroup, profile: ModelProfile, spec: LLMDeploymentSpec) -> Refusal | None:
    """Rule out a whole group: not allowed by the spec, or its GPU is not supported for this model."""
    gpu = group.gpu
    if not is_allowed(gpu, spec):
        allowed = ", ".join(spec.hardware.gpus)
        return Refusal(Reason.NO_MATCHING_GPU, f"{gpu.name} is not in spec.hardware.gpus ({allowed}).")
    if gpu.vendor != "NVIDIA":
        return Refusal(
            Reason.UNSUPPORTED_GPU,
            f"{gpu.name} is made by {gpu.vendor}, which this version does not plan for.",
        )
    if gpu.compute_capability < _OLDEST_CAPABILITY:
        return Refusal(
            Reason.UNSUPPORTED_GPU,
            f"{gpu.name} has compute capability {gpu.capability}; the engine needs 7.5 or newer.",
        )
    if needs_float16(gpu, profile) and not _is_named(gpu, spec):
        return Refusal(
            Reason.UNSUPPORTED_DTYPE,
            f"{gpu.name} does not compute in bfloat16; running this bfloat16 checkpoint in float16 changes values.",
            f"List {gpu.name} in spec.hardware.gpus to accept that.",
        )
    return _above_share(group, spec)


def _above_share(group: GpuGroup, spec: LLMDeploymentSpec) -> Refusal | None:
    """Pods that share a GPU share its memory, and only they can keep to their part of it."""
    share, asked = 1 / group.pods_per_gpu, spec.engine.gpu_memory_utilization
    if group.pods_per_gpu == 1 or (asked is not None and asked <= share):
        return None
    stated = "is not set" if asked is None else f"is {asked:g}"
    return Refusal(
        Reason.PIN_CONFLICT,
        f"{group.pods_per_gpu} pods share each {group.gpu.name} and its memory, but spec.engine.gpuMemoryUtilization "
        f"{stated}; set it to at most {int(share * 100) / 100:g}.",
    )


def needs_float16(gpu: Gpu, profile: ModelProfile) -> bool:
    """Tell whether the model's bfloat16 would have to run as float16 on this GPU."""
    return profile.dtype == "bfloat16" and not gpu.has_bf16


def is_allowed(gpu: Gpu, spec: LLMDeploymentSpec) -> bool:
    """Tell whether spec.hardware.gpus allows this GPU; an empty list allows every one."""
    return not spec.hardware.gpus or _is_named(gpu, spec)


def _is_named(gpu: Gpu, spec: LLMDeploymentSpec) -> bool:
    return any(named is not None and named.name == gpu.name for named in map(find_device, spec.hardware.gpus))


def _group(
    key: GroupKey,
    nodes: Sequence[NodeRoom],
    found: Mapping[GroupKey, Sequence[NodeRoom]],
    tolerations: tuple[Toleration, ...],
) -> GpuGroup:
    first = next(node.facts.gpus for node in nodes if node.facts.gpus is not None)
    reached = [
        *nodes,
        *(
            node
            for other, members in found.items()
            if other != key and other[:2] == key[:2]
            for node in members
            if matches_selector(node.facts, first.node_selector)
        ),
    ]
    exclusive = first.sharing is Sharing.WHOLE
    open_nodes = (node for node in reached if closed(node.facts, tolerations) is None)
    return GpuGroup(
        gpu=first.gpu,
        resource_name=first.resource_name,
        evidence=first.evidence,
        node_selector=first.node_selector,
        total_memory_bytes=min(each.facts.gpus.total_memory_bytes for each in reached if each.facts.gpus),
        nodes=tuple(reached),
        pods_per_gpu=first.pods_per_gpu,
        exclusive=exclusive,
        arranged=arrange(open_nodes, first.resource_name) if exclusive else None,
    )
