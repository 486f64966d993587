"""What is known about the GPUs of one node, and the node as identification looks at it.

Values only; how they are read from labels is in `gpu_labels` and `gpu_sharing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

from stowage.hardware.gpu import Gpu
from stowage.hardware.resources import Resources

NVIDIA_GPU: Final = "nvidia.com/gpu"

GroupKey: TypeAlias = tuple[str, str, tuple[tuple[str, str], ...]]
"""GPU model, resource and labels that pick it: nodes with equal keys serve one group."""

_NO_LABELS: Final[Mapping[str, str]] = {}


class Sharing(StrEnum):
    """What one requested device is: a whole GPU, a slice of one with memory of its own, or a turn on a shared one."""

    WHOLE = "Whole"
    SLICE = "Slice"
    SHARED = "Shared"


@dataclass(frozen=True, slots=True)
class GpuIdentity:
    """The GPUs of one node: model, how many can be asked for, under which resource, and how that is known.

    `total_memory_bytes` is what CUDA sees on one device. `node_selector` holds the labels that pick this
    GPU model. `pods_per_gpu` is above 1 where several pods share the memory of one device.
    """

    gpu: Gpu
    count: int
    resource_name: str
    evidence: str
    total_memory_bytes: int
    node_selector: Mapping[str, str] = field(default_factory=lambda: _NO_LABELS)
    sharing: Sharing = Sharing.WHOLE
    pods_per_gpu: int = 1
    group_key: GroupKey = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        # Looked up for every node of every plan, so it is put together once.
        key = (self.gpu.name, self.resource_name, tuple(sorted(self.node_selector.items())))
        object.__setattr__(self, "group_key", key)


@dataclass(frozen=True, slots=True)
class LabelledNode:
    """What identification looks at: a node's name, labels, capacity and allocatable resources."""

    name: str
    labels: Mapping[str, str]
    capacity: Resources
    allocatable: Resources
