"""What the widest part of a decoder layer holds while a batch runs through it, in bytes per token.

Residual and hidden states, and beside them either the feed-forward block or attention. Dense layers are matched at
20,000 and 29,000 tokens (vllm-project/vllm#10517); experts follow the workspaces of
`fused_moe/experts/triton_moe.py`, latent attention `attention/mla_attention.py`, compressed latent attention
`models/deepseek_v4/attention.py`. Nothing here depends on the batch: that comes in `LayerPeak.at`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from stowage.memory.basis import Basis
from stowage.memory.estimates import (
    NOTHING,
    Estimate,
    allocates_for_itself,
    compressed_attention_band,
    dense_activation_band,
    moe_activation_band,
)
from stowage.model.profile import (
    AttentionProfile,
    LatentAttentionProfile,
    LayerProfile,
    Mixer,
    MlpProfile,
    ModelProfile,
    MoeProfile,
)

_MIB: Final = 2**20
_PADDED_HEADS: Final = (64, 128)
"""Query heads that kernels of compressed attention take (nvidia/flashmla.py::get_padded_num_q_heads)."""

_OVERLAPPING_RATIO: Final = 4
"""Tokens that share a vector where compressors sum two overlapping windows (deepseek_v4/compressor.py)."""


@dataclass(frozen=True, slots=True)
class LayerPeak:
    """Bytes of a layer: for each token of a batch, for each of a pretended context, and whatever the batch.

    `band` holds the factors around the sum.
    """

    feed_forward_bytes: float
    attention_bytes: float
    context_bytes: float
    fixed_bytes: int
    band: Estimate

    def at(self, tokens: int, context_tokens: int) -> Estimate:
        """Give the peak with so many tokens in a batch."""
        attention = tokens * self.attention_bytes + context_tokens * self.context_bytes + self.fixed_bytes
        return self.band.scaled(max(tokens * self.feed_forward_bytes, attention))


@lru_cache(maxsize=4096)
def layer_peaks(basis: Basis) -> tuple[LayerPeak, ...]:
    """Give the peaks of the distinct layers of a model in a layout."""
    found = (
        _layer_peak(basis, layer, mixer)
        for layer in distinct_layers(basis.profile)
        for mixer in layer.mixers or (None,)
    )
    return tuple(dict.fromkeys(found))


@lru_cache(maxsize=4096)
def kept_expert_bytes(basis: Basis) -> Estimate:
    """Give the bytes for each token of a batch that experts compute in and that stay taken beside everything else.

    One buffer for all layers (v1/worker/workspace.py), where the release keeps it and the experts' kernels take it.
    """
    own = allocates_for_itself(basis.profile.architecture, basis.device.compute_capability)
    if own or not basis.version.experts_keep_workspace:
        return NOTHING
    widest = max(_expert_width(basis, layer.feed_forward) for layer in distinct_layers(basis.profile))
    off = moe_activation_band()
    return Estimate(1.0, 1 - off, 1 + off).scaled(widest * basis.element_bytes)


@lru_cache(maxsize=256)
def distinct_layers(profile: ModelProfile) -> tuple[LayerProfile, ...]:
    """Give each kind of layer once."""
    return tuple({(layer.mixers, layer.feed_forward): layer for layer in profile.layers}.values())


def _layer_peak(basis: Basis, layer: LayerProfile, mixer: Mixer | None) -> LayerPeak:
    profile, element = basis.profile, basis.element_bytes
    states = (profile.residual_streams + 2) * profile.hidden_size
    experts = _expert_width(basis, layer.feed_forward)
    feed_forward = max(experts, _dense_width(basis, layer.feed_forward))
    if isinstance(layer.feed_forward, MoeProfile):
        feed_forward += profile.hidden_size
    beside = kept_expert_bytes(basis).value if experts else 0.0
    attention, context, fixed = _mixer_bytes(basis, mixer)
    return LayerPeak(
        feed_forward_bytes=(states + feed_forward) * element,
        attention_bytes=states * element + beside + attention,
        context_bytes=context,
        fixed_bytes=fixed,
        band=_band(layer, mixer),
    )


def _band(layer: LayerProfile, mixer: Mixer | None) -> Estimate:
    if isinstance(mixer, LatentAttentionProfile) and mixer.sliding_window is not None:
        return compressed_attention_band()
    off = moe_activation_band() if isinstance(layer.feed_forward, MoeProfile) else dense_activation_band()
    return Estimate(1.0, 1 - off, 1 + off)


def _dense_width(basis: Basis, block: object) -> float:
    """Give the elements per token of a dense block, or of the shared experts."""
    ranks = basis.shape.tensor_parallel_size
    if isinstance(block, MoeProfile):
        return 3 * block.shared_intermediate_size / ranks
    if isinstance(block, MlpProfile):
        return (3 if block.gated else 2) * block.intermediate_size / ranks
    return 0.0


def _expert_width(basis: Basis, block: object) -> float:
    """Give the elements per token of the workspaces of routed experts."""
    if not isinstance(block, MoeProfile):
        return 0.0
    shape, hidden = basis.shape, basis.profile.hidden_size
    ranks = 1 if shape.enable_expert_parallel else shape.tensor_parallel_size * shape.data_parallel_size
    inner = block.intermediate_size / ranks
    gate_up = (2 if block.gated else 1) * inner
    return block.num_experts_per_tok * (max(inner, hidden) + max(gate_up, hidden))


def _mixer_bytes(basis: Basis, mixer: Mixer | None) -> tuple[float, float, int]:
    """Give what an attention block holds per token, per token of a pretended context, and at any batch."""
    ranks, element = basis.shape.tensor_parallel_size, basis.element_bytes
    if isinstance(mixer, AttentionProfile):
        heads = mixer.num_heads / ranks + max(1, mixer.num_kv_heads / ranks)
        return heads * (mixer.head_dim + mixer.value_head_dim) * element, 0.0, 0
    if not isinstance(mixer, LatentAttentionProfile):
        return 0.0, 0.0, 0
    heads, size = mixer.num_heads / ranks, mixer.qk_nope_head_dim + mixer.qk_rope_head_dim
    unpacked = basis.version.latent_as_heads
    if unpacked:
        return 4 * heads * unpacked * element, 0.0, 0
    scores = basis.version.indexer_logits_mib * _MIB if mixer.index_head_dim else 0
    if mixer.sliding_window is not None:
        return _compressed_bytes(mixer, heads, element), 0.0, scores
    queries, context = heads * (size + mixer.v_head_dim), heads * (mixer.qk_nope_head_dim + mixer.v_head_dim)
    if mixer.index_topk is not None and not basis.version.indexer_logits_mib:
        context = (
            0.0  # Sparse attention pretends no context before 0.20 (v1/attention/backends/mla/common.py).
        )
    return queries * element + _index_query_bytes(mixer, element), context * element, scores


def _index_query_bytes(mixer: LatentAttentionProfile, element_bytes: int) -> int:
    """Give the indexer's queries of a token, which every rank has whole, in 16 and in 8 bits."""
    return (mixer.index_num_heads or 0) * (mixer.index_head_dim or 0) * (element_bytes + 1)


def _compressed_bytes(mixer: LatentAttentionProfile, heads: float, element_bytes: int) -> float:
    """Give what compressed attention holds per token; it pretends no context.

    Queries of the rank's heads, and once more, like the outputs, for as many heads as the kernel takes; the
    compressor's sums and those of the indexer in 32 bits.
    """
    padded = next((size for size in _PADDED_HEADS if heads <= size), heads)
    held = (heads if heads < padded else 0) + 2 * padded
    parts = 2 * (2 if mixer.tokens_per_state == _OVERLAPPING_RATIO else 1) if mixer.tokens_per_state else 0
    sums = 4 * parts * (mixer.latent_dim + (mixer.index_head_dim or 0))
    return held * mixer.latent_dim * element_bytes + sums + _index_query_bytes(mixer, element_bytes)
