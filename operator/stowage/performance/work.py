"""What one rank does in a step, in numbers: the matrix products, attention layers and exchanges of its stage.

Made once for a model, a layout and a GPU from the profile's own tensors, so that bytes are those of the memory
ledger; a step then only multiplies by tokens. Equal layers are counted, not repeated.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod

from stowage.hardware.gpu import Gpu
from stowage.memory.device import DeviceMemory
from stowage.memory.encoder import absent_modalities
from stowage.memory.kv.cache import KvCache
from stowage.memory.kv.dtype import KvFormat, kv_format
from stowage.memory.kv.rules import kv_rules
from stowage.memory.layout import RankLayout
from stowage.memory.pipeline import stage_layers
from stowage.memory.quantized.kernels import Kernels, kernels_of, quantized_tensors
from stowage.memory.quantized.on_load import quantized_on_load
from stowage.memory.release.engine_version import EngineVersion
from stowage.memory.setting import Setting
from stowage.memory.shape import EngineShape
from stowage.memory.sharding import kv_heads_on_rank, rank_shape
from stowage.model.dtype import ELEMENT_BYTES
from stowage.model.profile import (
    AttentionProfile,
    LatentAttentionProfile,
    LayerProfile,
    ModelProfile,
    MoeProfile,
    StateProfile,
)
from stowage.model.tensors import ParameterTensor, Shard
from stowage.performance.arithmetic import Arithmetic, arithmetic_of, is_widened
from stowage.performance.kernels import is_product, layer_kernels, quantises


@dataclass(frozen=True, slots=True)
class LinearWork:
    """A matrix product that a rank repeats `count` times in a step: rows × columns, read once each time.

    `unpacked` are the elements that have to be widened before they are multiplied (0: stored as multiplied);
    `quantised`: a kernel of its own reads what goes in and writes it in fewer bits.
    """

    count: int
    rows: int
    columns: int
    weight_bytes: int
    arithmetic: Arithmetic
    unpacked: int = 0
    quantised: bool = False


@dataclass(frozen=True, slots=True)
class ExpertWork:
    """The experts of `count` equal layers on a rank.

    `held` experts are on the rank, of `total`; `elements` and `weight_bytes` are those of one expert as far as
    the rank holds it, `inputs` and `inner` the sizes of the vectors before and inside. `spread`: whole experts
    lie on different ranks, else each is divided; `unpacked` and `quantised` as in LinearWork, of one expert.
    """

    count: int
    total: int
    held: int
    chosen: int
    elements: int
    weight_bytes: int
    inputs: int
    inner: int
    arithmetic: Arithmetic
    spread: bool
    unpacked: int = 0
    quantised: bool = False


@dataclass(frozen=True, slots=True)
class AttentionWork:
    """Attention of `count` equal layers on a rank.

    `token_bytes` are read for each token of context, `decode_flops` and `prefill_flops` computed for each pair
    of a query and a token of context, with one exponential for each of `heads`; `span` bounds the context where
    the layer sees a window (0: all of it).
    `chunked`: a chunk is seen from its beginning, so half of the span on average.
    """

    count: int
    token_bytes: int
    decode_flops: int
    prefill_flops: int
    heads: int
    span: int = 0
    chunked: bool = False


@dataclass(frozen=True, slots=True)
class StateWork:
    """Recurrent states of `count` equal layers: bytes read and written for a request, operations for a token."""

    count: int
    state_bytes: int
    token_flops: int


@dataclass(frozen=True, slots=True)
class RankWork:
    """A step of one rank of the busiest pipeline stage.

    `head` is the product that makes logits, `exchanges` the all-reduces over tensor-parallel ranks of vectors of
    `hidden_size` elements; `kernels` are launched in a step besides those of attention and experts.
    """

    linears: tuple[LinearWork, ...]
    experts: tuple[ExpertWork, ...]
    attention: tuple[AttentionWork, ...]
    states: tuple[StateWork, ...]
    head: LinearWork
    layers: int
    hidden_size: int
    vocab_size: int
    element_bytes: int
    exchanges: int
    kernels: int


@lru_cache(maxsize=2048)
def rank_work(profile: ModelProfile, shape: EngineShape, gpu: Gpu, version: EngineVersion) -> RankWork:
    """Work out what a rank of the stage that holds most layers does; `shape` must be one the engine accepts."""
    plain = replace(
        shape,
        max_num_seqs=8,
        max_num_batched_tokens=8192,
        max_model_len=4096,
        gpu_memory_utilization=0.9,
        kv_cache_memory_bytes=None,
    )
    return _rank_work(profile, plain, gpu, version)


@lru_cache(maxsize=1024)
def _rank_work(profile: ModelProfile, shape: EngineShape, gpu: Gpu, version: EngineVersion) -> RankWork:
    loaded = quantized_on_load(profile, shape.quantization, version)
    held = loaded if isinstance(loaded, ModelProfile) else profile
    return _Reader(held, shape, gpu, version).work()


class _Reader:
    """Reads one stage."""

    def __init__(self, profile: ModelProfile, shape: EngineShape, gpu: Gpu, version: EngineVersion) -> None:
        device = DeviceMemory.of_gpu(gpu)
        self.profile, self.shape, self.gpu = profile, shape, gpu
        self.setting = Setting(profile, shape, device, version)
        self.element_bytes = ELEMENT_BYTES[self.setting.dtype]
        self.kernels: Kernels | None = kernels_of(device, version)
        self.rules = kv_rules(version)
        self.stage = shape.pipeline_parallel_size - 1
        self.layout = RankLayout(
            shape.tensor_parallel_size,
            shape.pipeline_parallel_size,
            self.stage,
            shape.data_parallel_size,
            shape.enable_expert_parallel,
            absent_modalities(profile, shape),
        )
        self.format = self._format(version)

    def _format(self, version: EngineVersion) -> KvFormat:
        cache = self.setting.kv_cache
        name = cache.kv_dtype if isinstance(cache, KvCache) else "auto"
        return kv_format(name, self.setting.dtype, version.version) or KvFormat(
            "auto", 8 * self.element_bytes
        )

    def work(self) -> RankWork:
        stages = stage_layers(self.profile.num_layers, self.shape.pipeline_parallel_size)
        busiest = max(stages, key=len)
        layers = Counter(self.profile.layers[busiest.start : busiest.stop])
        linears = [found for layer, count in layers.items() for found in self._linears(layer, count)]
        mixers = [(mixer, count) for layer, count in layers.items() for mixer in layer.mixers]
        experts = [self._experts(layer, count) for layer, count in layers.items()]
        attention = [self._attention(mixer, count) for mixer, count in mixers]
        reductions = sum(count * self._reductions(layer) for layer, count in layers.items())
        return RankWork(
            linears=_merged(linears),
            experts=tuple(found for found in experts if found is not None),
            attention=tuple(found for found in attention if found is not None),
            states=tuple(self._state(mixer, n) for mixer, n in mixers if isinstance(mixer, StateProfile)),
            head=self._head(),
            layers=len(busiest),
            hidden_size=self.profile.hidden_size,
            vocab_size=self.profile.padded_vocab_size,
            element_bytes=self.element_bytes,
            exchanges=reductions if self.shape.tensor_parallel_size > 1 else 0,
            kernels=self._kernels(layers),
        )

    def _kernels(self, layers: Counter[LayerProfile]) -> int:
        """Count what is launched in a step, besides exchanges."""
        return sum(count * layer_kernels(layer, self.gpu) for layer, count in layers.items())

    def _reductions(self, layer: LayerProfile) -> int:
        """Count all-reduces: one behind the mixer, one behind the feed-forward block, one for a divided norm."""
        blocks = bool(layer.mixers) + (layer.feed_forward is not None)
        if self.shape.data_parallel_size > 1 and isinstance(layer.feed_forward, MoeProfile):
            blocks -= 1
        divided = any(t.name.endswith("q_norm.weight") and t.shard is Shard.COLUMNS for t in layer.tensors)
        return blocks + divided

    def _linears(self, layer: LayerProfile, count: int) -> list[LinearWork]:
        return [self._linear(tensor, count) for tensor in layer.tensors if is_product(tensor)]

    def _linear(self, tensor: ParameterTensor, count: int) -> LinearWork:
        rows, columns = rank_shape(tensor, self.layout)
        scheme = tensor.linear.scheme if tensor.linear else None
        arithmetic = arithmetic_of(scheme, self.gpu)
        widened = rows * columns if is_widened(scheme, arithmetic) else 0
        return LinearWork(count, rows, columns, self._bytes(tensor), arithmetic, widened, quantises(tensor))

    def _bytes(self, tensor: ParameterTensor) -> int:
        shape = rank_shape(tensor, self.layout)
        if tensor.linear is None or tensor.linear.scheme is None:
            return prod(shape) * (tensor.element_bytes or self.element_bytes)
        held = quantized_tensors(tensor, shape, self.kernels)
        return sum(entry.size_bytes(self.element_bytes) for entry in held)

    def _experts(self, layer: LayerProfile, count: int) -> ExpertWork | None:
        moe = layer.feed_forward
        tensors = [t for t in layer.tensors if t.linear is not None and t.linear.role == "experts"]
        if not isinstance(moe, MoeProfile) or not tensors:
            return None
        shapes = [rank_shape(tensor, self.layout) for tensor in tensors]
        held, elements = shapes[0][0], sum(prod(shape[1:]) for shape in shapes)
        scheme = tensors[0].linear.scheme if tensors[0].linear else None
        arithmetic = arithmetic_of(scheme, self.gpu)
        return ExpertWork(
            count=count,
            total=moe.num_experts,
            held=held,
            chosen=moe.num_experts_per_tok,
            elements=elements,
            weight_bytes=sum(self._bytes(tensor) for tensor in tensors) // held,
            inputs=moe.latent_size or self.profile.hidden_size,
            inner=min(shapes[0][1:]),
            arithmetic=arithmetic,
            spread=self.layout.expert_parallel,
            unpacked=elements if is_widened(scheme, arithmetic) else 0,
            quantised=quantises(tensors[0]),
        )

    def _attention(self, mixer: object, count: int) -> AttentionWork | None:
        ranks = self.shape.tensor_parallel_size
        if isinstance(mixer, LatentAttentionProfile):
            heads = mixer.num_heads // ranks
            decode = 2 * heads * (mixer.latent_dim + mixer.kv_lora_rank)
            prefill = 2 * heads * (mixer.qk_nope_head_dim + mixer.qk_rope_head_dim + mixer.v_head_dim)
            size = self.format.latent_bytes(mixer.latent_dim)
            return AttentionWork(
                count, size, decode, prefill, heads, mixer.index_topk or mixer.sliding_window or 0
            )
        if not isinstance(mixer, AttentionProfile) or mixer.source == "encoder":
            return None
        heads = max(1, mixer.num_heads // ranks)
        flops = 2 * heads * (mixer.head_dim + mixer.value_head_dim)
        vector = self.format.vector_bytes
        size = kv_heads_on_rank(mixer.num_kv_heads, ranks) * (
            vector(mixer.head_dim) + vector(mixer.value_head_dim)
        )
        span = mixer.sliding_window or mixer.chunk or mixer.cross_tokens
        return AttentionWork(count, size, flops, flops, heads, span, mixer.chunk is not None)

    def _state(self, mixer: StateProfile, count: int) -> StateWork:
        ranks = self.shape.tensor_parallel_size
        width = mixer.inner_size or mixer.num_heads * mixer.head_dim
        depth = mixer.state_size or mixer.key_dim or mixer.head_dim
        elements = width * max(1, depth) // ranks
        return StateWork(count, elements * 4, 6 * elements)

    def _head(self) -> LinearWork:
        outer = [t for t in self.profile.outer_tensors if t.linear is not None and t.linear.role == "head"]
        if outer:
            return self._linear(outer[0], 1)
        rows = self.profile.padded_vocab_size // self.shape.tensor_parallel_size
        columns = self.profile.hidden_size
        return LinearWork(1, rows, columns, rows * columns * self.element_bytes, Arithmetic.SIXTEEN_BIT)


def _merged(linears: list[LinearWork]) -> tuple[LinearWork, ...]:
    """Count equal products together; of unlike ones each stays for itself."""
    total: Counter[LinearWork] = Counter()
    for linear in linears:
        total[replace(linear, count=1)] += linear.count
    return tuple(replace(linear, count=count) for linear, count in total.items())
