"""One question to the ledger: model, engine settings, device and release."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from stowage.api.refusal import Refusal
from stowage.memory.basis import Basis, basis_of
from stowage.memory.calibration import UNCALIBRATED, Calibration, calibration_key
from stowage.memory.device import DeviceMemory
from stowage.memory.estimates import Estimate
from stowage.memory.kv.attention_backend import DEFAULT_BLOCK_SIZE
from stowage.memory.kv.cache import KvCache, kv_cache
from stowage.memory.kv.pool import KvPool
from stowage.memory.kv.question import CacheQuestion
from stowage.memory.release.engine_version import EngineVersion
from stowage.memory.shape import EngineShape
from stowage.model.profile import ModelProfile

_SYNCHRONOUS_DRAFTS: Final = frozenset({"ngram", "suffix", "medusa", "mlp_speculator"})
"""Ways to guess tokens that exclude asynchronous scheduling."""


@dataclass(frozen=True, slots=True)
class Setting:
    """The inputs of a ledger; the shape has passed `constraints.check_shape`.

    `basis` holds what does not depend on the limits of the shape.
    """

    profile: ModelProfile
    shape: EngineShape
    device: DeviceMemory
    version: EngineVersion
    calibration: Calibration = UNCALIBRATED
    basis: Basis = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Look the basis up."""
        object.__setattr__(self, "basis", basis_of(self.profile, self.shape, self.device, self.version))

    @property
    def runner(self) -> str:
        """The model runner that serves this model here."""
        return self.basis.runner

    @property
    def counts_graphs(self) -> bool:
        """Whether the release takes its estimate of CUDA graphs out of the budget, with the runner that serves here."""
        version = self.version
        return version.graphs_subtracted and (self.runner == "V1" or version.v2_counts_graphs)

    @property
    def dtype(self) -> str:
        """What the model runs in."""
        return self.basis.dtype

    @property
    def element_bytes(self) -> int:
        """Bytes of one weight or activation element."""
        return self.basis.element_bytes

    def learnt(self, term: str, estimate: Estimate) -> Estimate:
        """Correct an estimate by what measured starts taught; `term` as in `Calibration.adjust`."""
        if self.calibration is UNCALIBRATED or self.device.is_cpu:
            return estimate
        key = calibration_key(self.profile, self.shape, self.device, self.version)
        return self.calibration.adjust(term, key, estimate)

    @property
    def kv_cache(self) -> KvCache | Refusal:
        """The KV cache of the model on all ranks, or why the engine would not start with it."""
        return kv_cache(self.cache_question) if self.basis.crosses_batch else self.basis.kv_cache

    @property
    def cache_question(self) -> CacheQuestion:
        """What decides the KV cache, and with it the attention backends."""
        question = self.basis.cache_question
        if not self.basis.crosses_batch:
            return question
        return replace(question, encoder_tokens=self.shape.max_num_batched_tokens)

    def kv_pool(self, stage: int) -> KvPool:
        """Make the block pool of the ranks of a pipeline stage; there must be a cache."""
        cache = self.kv_cache
        if isinstance(cache, Refusal):
            raise TypeError(cache.sentence)
        groups = cache.stages[stage]
        return KvPool(
            groups=groups,
            checked=cache.checked[stage],
            rules=self.basis.cache_question.rules,
            tokens_in_flight=self.window_tokens_in_flight,
            context_parallel_size=self.shape.decode_context_parallel_size,
            reserved_blocks=1 if self.version.null_block_reserved else 0,
            prints_concurrency=self.version.capacity_report == "concurrency",
            bytes_per_block=max(group.page_bytes for group in groups),
            block_size=min(group.lead.block_size for group in groups),
        )

    @property
    def block_size(self) -> int:
        """Tokens of one KV block of the attention layers."""
        cache = self.kv_cache
        return DEFAULT_BLOCK_SIZE if isinstance(cache, Refusal) else cache.block_size

    @property
    def window_tokens_in_flight(self) -> int:
        """Tokens scheduled and not yet settled, which windowed layers keep besides their window."""
        if self.version.window_batches_in_flight == "one":
            return self.shape.max_num_batched_tokens
        return self._batches_in_flight * self.shape.max_num_batched_tokens

    @property
    def _batches_in_flight(self) -> int:
        """Batches at once (config/vllm.py::max_concurrent_batches); some ways to guess tokens allow only one."""
        stages, speculative = self.shape.pipeline_parallel_size, self.shape.speculative
        if speculative is not None and speculative.method in _SYNCHRONOUS_DRAFTS:
            return stages
        if self.device.is_cpu:
            return stages
        if self.runner == "V2":
            return stages + 1
        return max(2, stages)
