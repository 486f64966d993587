"""Where a rank stands among the ranks of a replica."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RankLayout:
    """The parallel sizes, and the rank's pipeline stage counted from 0.

    With `expert_parallel` whole experts are spread over all tensor- and data-parallel ranks; without it
    every expert is divided by tensor parallelism times data parallelism. Towers that only serve
    `absent_modalities` (limit 0 per prompt, or a language model only) are not loaded; with
    `encoder_data_parallel` every rank holds the others whole (`--mm-encoder-tp-mode data`).
    """

    tensor_parallel_size: int
    pipeline_parallel_size: int
    stage: int
    data_parallel_size: int = 1
    expert_parallel: bool = False
    absent_modalities: tuple[str, ...] = ()
    encoder_data_parallel: bool = False

    @property
    def is_first(self) -> bool:
        """Whether this is the first pipeline stage."""
        return self.stage == 0

    @property
    def is_last(self) -> bool:
        """Whether this is the last pipeline stage."""
        return self.stage == self.pipeline_parallel_size - 1

    @property
    def sequence_parallel_experts(self) -> bool:
        """Whether tensor-parallel ranks send different tokens to the experts (use_sequence_parallel_moe)."""
        return self.expert_parallel and self.tensor_parallel_size > 1 and self.data_parallel_size > 1

    @property
    def expert_ranks(self) -> int:
        """Number of ranks that share the experts of a layer."""
        return self.tensor_parallel_size * self.data_parallel_size
