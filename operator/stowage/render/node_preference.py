"""Which nodes a replica would rather have, so that small models do not break up large nodes.

The scheduler chooses the node, and by default it spreads pods: four small models would take one GPU of four 8-GPU
nodes each. A preference for nodes with as few GPUs as the replica needs keeps large nodes whole where there is
another place. It is a wish, never a condition, and follows from the plan alone, so that templates stay the same.
"""

from __future__ import annotations

from typing import Any, Final

from stowage.hardware.gpu_labels import NVIDIA_GPU
from stowage.planning.plan import Plan

GPU_COUNT_LABEL: Final = "nvidia.com/gpu.count"
"""GPUs of a node, as GPU feature discovery writes it."""

# Sizes that nodes come in; the closest to the replica's weighs most (weights are 1 to 100).
_NODE_SIZES: Final = (1, 2, 4, 8, 16)
_CLOSEST: Final = 100
_STEP: Final = 20


def node_preference(plan: Plan) -> dict[str, Any] | None:
    """Give the `affinity` of the replica's pod; None where whole GPUs are not what it asks for."""
    if plan.gpu_resource != NVIDIA_GPU:
        return None
    sizes = [size for size in _NODE_SIZES if size >= plan.gpus_per_replica]
    terms = [
        {
            "weight": _CLOSEST - _STEP * place,
            "preference": {
                "matchExpressions": [{"key": GPU_COUNT_LABEL, "operator": "In", "values": [str(size)]}]
            },
        }
        for place, size in enumerate(sizes)
    ]
    return {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": terms}} if terms else None
