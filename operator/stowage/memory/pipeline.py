"""Which layers a pipeline stage holds."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=1024)
def stage_layers(num_layers: int, pipeline_parallel_size: int) -> tuple[range, ...]:
    """Split layers over stages as vLLM does (distributed/utils.py::get_pp_indices).

    Each stage gets the quotient; what remains goes one by one to the stages before the last, counted
    backwards, because the last stage also holds the output head.
    """
    each, remainder = divmod(num_layers, pipeline_parallel_size)
    sizes = [each] * pipeline_parallel_size
    for position in range(2, remainder + 2):
        sizes[-position] += 1
    starts = [sum(sizes[:stage]) for stage in range(pipeline_parallel_size)]
    return tuple(range(start, start + size) for start, size in zip(starts, sizes, strict=True))
