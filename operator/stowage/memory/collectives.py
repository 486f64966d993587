"""What fused all-reduces keep on a rank outside the allocator: a workspace that all ranks of the node map.

Newer releases fuse the all-reduce after attention and feed-forward blocks with the norm that follows, by a kernel of
FlashInfer, where GPUs hang on switches. Its buffers are small, but the memory that switches multicast to comes in
large pieces, so that a rank loses the same whatever the model. Sizes are data: collectives.toml.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from math import ceil
from typing import Any, Final

from stowage.memory.device import DeviceMemory
from stowage.memory.estimates import NOTHING, Estimate
from stowage.memory.release.engine_version import EngineVersion
from stowage.memory.shape import EngineShape

_MIB: Final = 2**20
_LAMPORT_BUFFERS: Final = 3
_FLAG_BYTES: Final = 256 * 4
_ULTRA: Final = (10, 3)
"""Blackwell Ultra, which the first releases that fuse do not count as Blackwell."""


def fused_all_reduce_bytes(shape: EngineShape, version: EngineVersion, device: DeviceMemory) -> Estimate:
    """Give the workspace of a rank; nothing where the release, the shape or the device does not fuse.

    Its low end is a rank without FlashInfer, with which custom images may come.
    """
    if not (device.switched and _fuses(shape, version)):
        return NOTHING
    ranks = shape.tensor_parallel_size
    largest = _largest_message_bytes(device.compute_capability, ranks)
    if largest is None or (device.compute_capability == _ULTRA and not version.fuses_on_ultra):
        return NOTHING
    piece = int(_table()["piece_mib"]) * _MIB
    sizes = _buffers(version.all_reduce_backend, largest, ranks)
    taken = float(sum(ceil(size / piece) * piece for size in sizes))
    beside = int(_table()["beside_mib"]) * _MIB
    return Estimate(taken + beside, 0.0, taken + 2 * beside)


def _fuses(shape: EngineShape, version: EngineVersion) -> bool:
    """Whether the release fuses in this shape: eager engines do not, unless it reduces that way everywhere."""
    if shape.tensor_parallel_size == 1 or version.fused_all_reduce == "never":
        return False
    if version.fused_all_reduce == "everywhere":
        return True
    stages, copies = shape.pipeline_parallel_size > 1, shape.data_parallel_size > 1
    if shape.enforce_eager or (stages and version.fused_all_reduce != "compiled"):
        return False
    return not (copies and version.fused_all_reduce == "compiled-alone")


def _buffers(backend: str, message_bytes: float, ranks: int) -> tuple[float, ...]:
    one = (_LAMPORT_BUFFERS * 2 * message_bytes,)
    three = (ranks * message_bytes, ranks * _FLAG_BYTES, _LAMPORT_BUFFERS * ranks * message_bytes)
    return {"mnnvl": one, "trtllm": three, "both": (*one, *three)}[backend]


def _largest_message_bytes(compute_capability: tuple[int, int], ranks: int) -> float | None:
    name = f"{compute_capability[0]}.{compute_capability[1]}"
    mebibytes = _table()["largest_message_mib"].get(name, {}).get(str(ranks))
    return None if mebibytes is None else mebibytes * _MIB


@cache
def _table() -> dict[str, Any]:
    text = files("stowage.memory").joinpath("collectives.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)
