"""The shapes that are tried: every GPU model of the snapshot, split over every number of GPUs that may work.

A group gathers the nodes whose GPUs are the same model and are picked by the same labels, since one node
selector must be able to reach them all. What rules a whole group out before any memory is computed is
decided here too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.api.v1alpha1 import LLMDeploymentSpec
from stowage.hardware.catalog import find_gpu, nearest_names
from stowage.hardware.gpu import Gpu
from stowage.hardware.gpu_labels import NVIDIA_GPU
from stowage.hardware.inventory import Inventory
from stowage.hardware.room import NodeRoom, matches_selector
from stowage.memory.constraints import tensor_parallel_sizes
from stowage.memory.device import DeviceMemory
from stowage.model.profile import ModelProfile

# vLLM's CUDA builds hold no kernels for older devices.
_OLDEST_CAPABILITY: Final = (7, 5)


@dataclass(frozen=True, slots=True)
class GpuGroup:
    """Nodes with the same GPU model that one node selector reaches.

    `total_memory_bytes` is what CUDA sees on the smallest device of the group; `nodes` is empty for a
    hypothetical group, which stands for nodes that could be bought.
    """

    gpu: Gpu
    resource_name: str
    evidence: str
    node_selector: Mapping[str, str]
    total_memory_bytes: int
    nodes: tuple[NodeRoom, ...] = ()

    @property
    def most_gpus_on_a_node(self) -> int:
        """GPUs of the largest node."""
        return max((node.total_gpus for node in self.nodes), default=0)

    @property
    def device(self) -> DeviceMemory:
        """One GPU as the memory model sees it."""
        return DeviceMemory(self.gpu.name, self.total_memory_bytes, self.gpu.compute_capability, "GPU")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One shape: a replica on `tensor_parallel_size` GPUs of one node of the group."""

    group: GpuGroup
    tensor_parallel_size: int

    def __str__(self) -> str:
        return f"tp{self.tensor_parallel_size} on {self.group.gpu.name}"


def gpu_groups(inventory: Inventory, spec: LLMDeploymentSpec) -> tuple[GpuGroup, ...]:
    """Group the nodes that the spec's node selector allows, in order of GPU name."""
    found: dict[tuple[str, ...], list[NodeRoom]] = {}
    for node in inventory.nodes:
        gpus = node.facts.gpus
        if gpus is not None and matches_selector(node.facts, spec.hardware.node_selector):
            labels = (f"{key}={value}" for key, value in sorted(gpus.node_selector.items()))
            found.setdefault((gpus.gpu.name, gpus.resource_name, *labels), []).append(node)
    return tuple(_group(nodes) for _, nodes in sorted(found.items()))


def hypothetical_group(gpu: Gpu) -> GpuGroup:
    """Stand for nodes with this GPU that the cluster does not have."""
    return GpuGroup(gpu, NVIDIA_GPU, "catalog", {}, gpu.cuda_total_bytes)


def candidates(
    groups: Iterable[GpuGroup], profile: ModelProfile, spec: LLMDeploymentSpec
) -> tuple[Candidate, ...]:
    """List the shapes of every group: the pinned size, else all sizes that split the model and fit a node."""
    pinned = spec.parallelism.tensor
    found: list[Candidate] = []
    for group in groups:
        possible = (size for size in tensor_parallel_sizes(profile) if size <= group.most_gpus_on_a_node)
        found += [Candidate(group, size) for size in ((pinned,) if pinned else possible)]
    return tuple(found)


def unknown_gpu(spec: LLMDeploymentSpec) -> Refusal | None:
    """Refuse a name in spec.hardware.gpus that the catalog does not have."""
    for name in spec.hardware.gpus:
        if find_gpu(name) is None:
            near = ", ".join(nearest_names(name))
            return Refusal(
                Reason.UNKNOWN_GPU,
                f"spec.hardware.gpus names {name}, which is not a GPU that this version knows.",
                f"Did you mean {near}?"
                if near
                else "Use the value of a node's label nvidia.com/gpu.product.",
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
    return None


def needs_float16(gpu: Gpu, profile: ModelProfile) -> bool:
    """Tell whether the model's bfloat16 would have to run as float16 on this GPU."""
    return profile.dtype == "bfloat16" and not gpu.has_bf16


def is_allowed(gpu: Gpu, spec: LLMDeploymentSpec) -> bool:
    """Tell whether spec.hardware.gpus allows this GPU; an empty list allows every one."""
    return not spec.hardware.gpus or _is_named(gpu, spec)


def _is_named(gpu: Gpu, spec: LLMDeploymentSpec) -> bool:
    return any(named is not None and named.name == gpu.name for named in map(find_gpu, spec.hardware.gpus))


def _group(nodes: list[NodeRoom]) -> GpuGroup:
    identities = [node.facts.gpus for node in nodes if node.facts.gpus is not None]
    first = identities[0]
    return GpuGroup(
        gpu=first.gpu,
        resource_name=first.resource_name,
        evidence=first.evidence,
        node_selector=first.node_selector,
        total_memory_bytes=min(each.total_memory_bytes for each in identities),
        nodes=tuple(nodes),
    )
