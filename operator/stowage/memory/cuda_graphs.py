"""CUDA graphs: which batch sizes are captured, and what that is expected to take.

The list of sizes is exact (vllm/config/vllm.py); bytes per size are the weakest term of the ledger and
carry a band of half to double.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from stowage.memory.device import DeviceMemory
from stowage.memory.engine_version import EngineVersion
from stowage.memory.estimates import NOTHING, Estimate, graph_bytes_per_size
from stowage.memory.shape import EngineShape

_CEILING: Final = 512
_FINE_LIMIT: Final = 256
_REFERENCE_LAYERS: Final = 32


def graph_bytes(
    shape: EngineShape, device: DeviceMemory, version: EngineVersion, num_layers_on_rank: int
) -> Estimate:
    """Give what captured graphs take on a rank, whether or not the release counts it."""
    if shape.enforce_eager or device.is_cpu:
        return NOTHING
    sizes = shape.cudagraph_capture_sizes
    if sizes is None:
        sizes = capture_sizes(
            shape.max_num_seqs, shape.max_num_batched_tokens, _ceiling(device, version), version
        )
    return graph_bytes_per_size().scaled(len(sizes) * num_layers_on_rank / _REFERENCE_LAYERS)


@lru_cache(maxsize=4096)
def capture_sizes(
    max_num_seqs: int, max_num_batched_tokens: int, ceiling: int, version: EngineVersion
) -> tuple[int, ...]:
    """Give the batch sizes that are captured by default."""
    largest = min(2 * max_num_seqs, ceiling, max_num_batched_tokens)
    sizes = {size for size in (1, 2, 4) if size <= largest}
    sizes.update(range(8, min(largest + 1, _FINE_LIMIT), 8))
    sizes.update(range(_FINE_LIMIT, largest + 1, version.capture_step_above_256))
    if max_num_batched_tokens <= largest:
        sizes.add(max_num_batched_tokens)
    if max_num_seqs <= largest:
        sizes.add(max_num_seqs)
    return tuple(sorted(sizes))


def _ceiling(device: DeviceMemory, version: EngineVersion) -> int:
    return version.blackwell_capture_ceiling if device.compute_capability[0] == 10 else _CEILING
