"""How sure a forecast is: what it rests on that nobody measured, and how wide its band therefore is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from stowage.hardware.gpu import Gpu
from stowage.performance.arithmetic import Arithmetic
from stowage.performance.pace import Pace, pace_of
from stowage.performance.serving import Serving


@dataclass(frozen=True, slots=True)
class BandShare:
    """Half-widths of the bands, as shares of the central value."""

    ttft: float
    tpot: float


_MEASURED = BandShare(ttft=0.6, tpot=0.3)
"""Nine of ten measured rows lie within (the goals that bench/latency_accuracy.py checks)."""

_UNMEASURED = BandShare(ttft=1.5, tpot=1.0)


def unmeasured(serving: Serving) -> tuple[str, ...]:
    """Name what in this set-up no measurement supports."""
    return _unmeasured(pace_of(serving), serving.same_node)


@lru_cache(maxsize=1024)
def _unmeasured(pace: Pace, same_node: bool) -> tuple[str, ...]:
    shape, gpu, work = pace.shape, pace.gpu, pace.work
    formats = {linear.arithmetic for linear in work.linears} | {entry.arithmetic for entry in work.experts}
    known = gpu.vendor == "NVIDIA" and gpu.compute_capability in ((9, 0), (10, 0), (10, 3))
    ranks = shape.tensor_parallel_size * shape.data_parallel_size
    found = (
        ("this GPU family" if not known else ""),
        ("PCIe between GPUs" if ranks > 1 and same_node and not _linked(gpu, ranks) else ""),
        ("network between nodes" if not same_node else ""),
        ("pipeline parallelism" if shape.pipeline_parallel_size > 1 else ""),
        ("INT8 arithmetic" if Arithmetic.INT8 in formats else ""),
        ("FP4 arithmetic" if Arithmetic.FP4 in formats and not known else ""),
        ("recurrent layers" if work.states else ""),
        ("speculative decoding" if shape.speculative is not None else ""),
    )
    return tuple(name for name in found if name)


def band_share(missing: tuple[str, ...]) -> BandShare:
    """Give the half-widths for a set-up that rests on so much unmeasured."""
    return _UNMEASURED if missing else _MEASURED


def _linked(gpu: Gpu, ranks: int) -> bool:
    return gpu.has_fast_link and ranks <= (gpu.link_reach or ranks)
