"""What model, layout, device and release settle before anybody says how long contexts or batches are.

A planner asks thousands of questions that differ in nothing but limits: context length, batch, utilisation. All
that those questions share is worked out here, once for each layout, and remembered. Nothing in here may depend on a
limit: the shape that it is made from has none (`EngineShape.without_limits`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

from stowage.api.refusal import Refusal
from stowage.memory.device import DeviceMemory
from stowage.memory.kv.attention_backend import Conditions, auto_kv_dtype
from stowage.memory.kv.cache import KvCache, kv_cache
from stowage.memory.kv.question import CacheQuestion, has_cross_attention
from stowage.memory.kv.rules import kv_rules
from stowage.memory.release.engine_version import EngineVersion
from stowage.memory.release.model_runner import model_runner
from stowage.memory.shape import EngineShape
from stowage.memory.speculation import draft_of
from stowage.model.dtype import ELEMENT_BYTES, element_type
from stowage.model.profile import ModelProfile


@dataclass(frozen=True, eq=False)
class Basis:
    """A layout of a model on a device; made by `basis_of` alone, so that equal ones are the same object."""

    profile: ModelProfile
    shape: EngineShape
    device: DeviceMemory
    version: EngineVersion

    @cached_property
    def runner(self) -> str:
        """The model runner that serves this model here; the CPU backend has no Triton and stays on V1."""
        speculative = self.shape.speculative
        if self.device.is_cpu:
            return "V1"
        return model_runner(self.profile, self.version, speculative.method if speculative else None)

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
    def crosses_batch(self) -> bool:
        """Whether cross attention is given room for as many encoder tokens as a batch has, and not for its own."""
        return kv_rules(self.version).cross_tokens == "batch" and has_cross_attention(self.profile)

    @cached_property
    def cache_question(self) -> CacheQuestion:
        """What decides the KV cache, and with it the attention backends, but for the limit of `crosses_batch`."""
        shape, speculative = self.shape, self.shape.speculative
        return CacheQuestion(
            profile=self.profile,
            rules=kv_rules(self.version),
            where=self._attention_conditions,
            tensor_parallel_size=shape.tensor_parallel_size,
            pipeline_parallel_size=shape.pipeline_parallel_size,
            context_parallel_size=shape.decode_context_parallel_size,
            prefix_caching=shape.enable_prefix_caching,
            hybrid_manager=not shape.disable_hybrid_kv_cache_manager,
            draft_method=speculative.method if speculative else None,
            drafts=speculative.num_speculative_tokens if speculative else 0,
            draft=draft_of(self.profile, speculative),
        )

    @cached_property
    def kv_cache(self) -> KvCache | Refusal:
        """The KV cache of the model on all ranks, or why the engine would not start with it."""
        return kv_cache(self.cache_question)

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


def basis_of(
    profile: ModelProfile, shape: EngineShape, device: DeviceMemory, version: EngineVersion
) -> Basis:
    """Give the basis of a shape, whatever its limits."""
    return _basis(profile, _ByLayout(shape), device, version)


class _ByLayout:
    """A shape as a key: it equals every other one with the same fields beside limits."""

    __slots__ = ("fields", "shape")

    def __init__(self, shape: EngineShape) -> None:
        self.shape = shape
        self.fields = shape.beside_limits

    def __hash__(self) -> int:
        return hash(self.fields)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByLayout) and self.fields == other.fields


@lru_cache(maxsize=4096)
def _basis(profile: ModelProfile, layout: _ByLayout, device: DeviceMemory, version: EngineVersion) -> Basis:
    return Basis(profile, layout.shape.without_limits(), device, version)
