"""Where a rank stands among the ranks of a replica."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RankLayout:
    """The parallel sizes, and the rank's pipeline stage counted from 0.

    With `expert_parallel` whole experts are spread over all tensor- and data-parallel ranks; without it
    every expert is divided by tensor parallelism times data parallelism.
    """

    tensor_parallel_size: int
    pipeline_parallel_size: int
    stage: int
    data_parallel_size: int = 1
    expert_parallel: bool = False

    @property
    def is_first(self) -> bool:
        """Whether this is the first pipeline stage."""
        return self.stage == 0

    @property
    def is_last(self) -> bool:
        """Whether this is the last pipeline stage."""
        return self.stage == self.pipeline_parallel_size - 1

    @property
    def expert_ranks(self) -> int:
        """Number of ranks that share the experts of a layer."""
        return self.tensor_parallel_size * self.data_parallel_size
