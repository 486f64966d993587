"""One question to the ledger: model, engine settings, device and release."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from stowage.api.refusal import Refusal
from stowage.memory.attention_backend import DEFAULT_BLOCK_SIZE, Conditions, auto_kv_dtype
from stowage.memory.calibration import UNCALIBRATED, Calibration, calibration_key
from stowage.memory.device import DeviceMemory
from stowage.memory.engine_version import EngineVersion
from stowage.memory.estimates import Estimate
from stowage.memory.kv_cache import KvCache, kv_cache
from stowage.memory.kv_pool import KvPool
from stowage.memory.kv_question import CacheQuestion, has_cross_attention
from stowage.memory.kv_rules import kv_rules
from stowage.memory.model_runner import model_runner
from stowage.memory.shape import EngineShape
from stowage.memory.speculation import draft_of
from stowage.model.dtype import ELEMENT_BYTES, element_type
from stowage.model.profile import ModelProfile

_SYNCHRONOUS_DRAFTS: Final = frozenset({"ngram", "suffix", "medusa", "mlp_speculator"})
"""Ways to guess tokens that exclude asynchronous scheduling."""


@dataclass(frozen=True)
class Setting:
    """The inputs of a ledger; the shape has passed `constraints.check_shape`."""

    profile: ModelProfile
    shape: EngineShape
    device: DeviceMemory
    version: EngineVersion
    calibration: Calibration = UNCALIBRATED
    shared: dict[str, Estimate] = field(default_factory=dict, compare=False, repr=False)
    """Estimates that are the same for all stages, by name, once one of them has asked."""

    @cached_property
    def runner(self) -> str:
        """The model runner that serves this model here; the CPU backend has no Triton and stays on V1."""
        speculative = self.shape.speculative
        if self.device.is_cpu:
            return "V1"
        return model_runner(self.profile, self.version, speculative.method if speculative else None)

    def learnt(self, term: str, estimate: Estimate) -> Estimate:
        """Correct an estimate by what measured starts taught; `term` as in `Calibration.adjust`."""
        if self.calibration is UNCALIBRATED or self.device.is_cpu:
            return estimate
        key = calibration_key(self.profile, self.shape, self.device, self.version)
        return self.calibration.adjust(term, key, estimate)

    @cached_property
    def dtype(self) -> str:
        """What the model runs in: the asked dtype, else its own (float16 where there is no bfloat16)."""
        asked = element_type(self.shape.dtype)
        if asked is not None:
            return asked
        lacks_bf16 = not self.device.is_cpu and self.device.compute_capability < (8, 0)
        return "float16" if lacks_bf16 and self.profile.dtype == "bfloat16" else self.profile.dtype

    @cached_property
    def element_bytes(self) -> int:
        """Bytes of one weight or activation element."""
        return ELEMENT_BYTES[self.dtype]

    @cached_property
    def kv_cache(self) -> KvCache | Refusal:
        """The KV cache of the model on all ranks, or why the engine would not start with it."""
        return kv_cache(self.cache_question)

    @cached_property
    def cache_question(self) -> CacheQuestion:
        """What decides the KV cache, and with it the attention backends."""
        shape, speculative, rules = self.shape, self.shape.speculative, kv_rules(self.version)
        takes_batch = rules.cross_tokens == "batch" and has_cross_attention(self.profile)
        return CacheQuestion(
            profile=self.profile,
            rules=rules,
            where=self._attention_conditions,
            tensor_parallel_size=shape.tensor_parallel_size,
            pipeline_parallel_size=shape.pipeline_parallel_size,
            context_parallel_size=shape.decode_context_parallel_size,
            prefix_caching=shape.enable_prefix_caching,
            hybrid_manager=not shape.disable_hybrid_kv_cache_manager,
            draft_method=speculative.method if speculative else None,
            drafts=speculative.num_speculative_tokens if speculative else 0,
            draft=draft_of(self.profile, speculative),
            encoder_tokens=shape.max_num_batched_tokens if takes_batch else None,
        )

    def kv_pool(self, stage: int) -> KvPool:
        """Make the block pool of the ranks of a pipeline stage; there must be a cache."""
        cache = self.kv_cache
        if isinstance(cache, Refusal):
            raise TypeError(cache.sentence)
        groups = cache.stages[stage]
        return KvPool(
            groups=groups,
            checked=cache.checked[stage],
            rules=kv_rules(self.version),
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
    def _attention_conditions(self) -> Conditions:
        capability = None if self.device.is_cpu else self.device.compute_capability
        asked, release = self.shape.kv_cache_dtype, self.version.version
        if asked == "auto":
            own = auto_kv_dtype(self.profile.architecture, release, capability)
            asked = own if own != "auto" else self.profile.kv_cache_dtype or "auto"
        return Conditions(
            release=release,
            capability=capability,
            device=self.device.name,
            dtype=self.dtype,
            kv_dtype=asked,
            block_size=self.shape.block_size,
            context_parallel=self.shape.decode_context_parallel_size > 1,
        )

    @cached_property
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
