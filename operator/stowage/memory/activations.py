"""The transient peak of the profiling run: the widest layer, or the sampler, whichever is larger.

Layer term: residual, hidden state and what a layer's widest part allocates for all batched tokens. Dense layers
are matched at 20,000 and 29,000 tokens (vllm-project/vllm#10517); experts follow the workspaces of
`fused_moe/experts/triton_moe.py`, latent attention the context that the V1 profile pretends
(`attention/mla_attention.py`). Sampler term: logits of one position of each request over the whole vocabulary,
times what the release's sampler holds per logit; it runs on the last pipeline stage only.
"""

from __future__ import annotations

from functools import lru_cache

from stowage.memory.encoder import encoder_bytes
from stowage.memory.estimates import (
    Estimate,
    dense_activation_band,
    gathered_bytes_per_logit,
    moe_activation_band,
    sampler_bytes_per_logit,
)
from stowage.memory.layout import RankLayout
from stowage.memory.setting import Setting
from stowage.model.profile import (
    AttentionProfile,
    LatentAttentionProfile,
    LayerProfile,
    MlpProfile,
    ModelProfile,
    MoeProfile,
)

_MIB = 2**20
_LATENT_WORKSPACE_TOKENS = 64 * 1024
"""Upper limit of the chunked-context workspace, in tokens (mla_attention.py)."""


def activation_bytes(setting: Setting, layout: RankLayout) -> Estimate:
    """Give the transient peak on a rank in bytes."""
    tokens = setting.shape.max_num_batched_tokens
    output = tokens * setting.profile.hidden_size * setting.element_bytes
    peak = _layers_peak(setting, layout)
    if layout.pipeline_parallel_size > 1:
        peak = peak.plus(Estimate(2 * output, 2 * output, 2 * output))
    if layout.is_last:
        sampler = _sampler_bytes(setting).plus(Estimate(output, output, output))
        if setting.version.profile_keeps_cached:
            # Blocks of the layers stay cached while the sampler takes its own; how many it reuses is not known.
            peak = Estimate(
                peak.value + sampler.value, max(peak.low, sampler.low), 1.5 * (peak.high + sampler.high)
            )
        peak = Estimate(
            max(peak.value, sampler.value), max(peak.low, sampler.low), max(peak.high, sampler.high)
        )
    return peak.plus(encoder_bytes(setting, layout, peak))


def latent_workspace_tokens(setting: Setting) -> int:
    """Give the tokens of the chunked-context workspace of latent attention."""
    shape = setting.shape
    wanted = max(8 * shape.max_model_len, 4 * shape.max_num_seqs * setting.block_size)
    return min(wanted, _LATENT_WORKSPACE_TOKENS)


def _layers_peak(setting: Setting, layout: RankLayout) -> Estimate:
    peak = setting.shared.get("layers")
    if peak is None:
        peaks = [_layer_peak(setting, layout, layer) for layer in distinct_layers(setting.profile)]
        peak = setting.shared["layers"] = max(peaks, key=lambda estimate: estimate.value)
    return peak


@lru_cache(maxsize=256)
def distinct_layers(profile: ModelProfile) -> tuple[LayerProfile, ...]:
    """Give each kind of layer once."""
    return tuple({(layer.mixers, layer.feed_forward): layer for layer in profile.layers}.values())


def _layer_peak(setting: Setting, layout: RankLayout, layer: LayerProfile) -> Estimate:
    tokens, hidden = setting.shape.max_num_batched_tokens, setting.profile.hidden_size
    is_moe = isinstance(layer.feed_forward, MoeProfile)
    width = 3 * hidden + _feed_forward_width(setting, layout, layer)
    value = tokens * width * setting.element_bytes
    if is_moe:
        value += tokens * hidden * setting.element_bytes
    mixers = max((_mixer_bytes(setting, layout, mixer) for mixer in layer.mixers), default=0.0)
    value = max(value, tokens * 3 * hidden * setting.element_bytes + mixers)
    band = moe_activation_band() if is_moe else dense_activation_band()
    return Estimate(value, value * (1 - band), value * (1 + band))


def _feed_forward_width(setting: Setting, layout: RankLayout, layer: LayerProfile) -> float:
    """Give the elements per token that a feed-forward block holds beside residual, hidden state and output."""
    block, tp = layer.feed_forward, layout.tensor_parallel_size
    if isinstance(block, MlpProfile):
        return (3 if block.gated else 2) * block.intermediate_size / tp
    if block is None:
        return 0.0
    hidden = setting.profile.hidden_size
    inner = block.intermediate_size / (1 if layout.expert_parallel else layout.expert_ranks)
    gate_up = (2 if block.gated else 1) * inner
    routed = block.num_experts_per_tok * (max(inner, hidden) + max(gate_up, hidden))
    shared = 3 * block.shared_intermediate_size / tp
    return max(routed, shared)


def _mixer_bytes(setting: Setting, layout: RankLayout, mixer: object) -> float:
    """Give what an attention block holds: queries, keys, values and outputs, or the pretended context."""
    tokens, tp = setting.shape.max_num_batched_tokens, layout.tensor_parallel_size
    if isinstance(mixer, AttentionProfile):
        rows = mixer.num_heads / tp * (mixer.head_dim + mixer.value_head_dim)
        rows += max(1, mixer.num_kv_heads / tp) * (mixer.head_dim + mixer.value_head_dim)
        return tokens * rows * setting.element_bytes
    if isinstance(mixer, LatentAttentionProfile):
        heads = mixer.num_heads / tp
        queries = tokens * heads * (mixer.qk_nope_head_dim + mixer.qk_rope_head_dim + mixer.v_head_dim)
        scores = setting.version.indexer_logits_mib * _MIB if mixer.index_head_dim else 0
        context = latent_workspace_tokens(setting) * heads * (mixer.qk_nope_head_dim + mixer.v_head_dim)
        if mixer.index_topk is not None and not setting.version.indexer_logits_mib:
            context = (
                0  # Sparse attention pretends no context before 0.20 (v1/attention/backends/mla/common.py).
            )
        return (queries + context) * setting.element_bytes + scores
    return 0.0


def _sampler_bytes(setting: Setting) -> Estimate:
    drafted = setting.shape.speculative.num_speculative_tokens if setting.shape.speculative else 0
    logits = setting.shape.max_num_seqs * setting.profile.padded_vocab_size
    tp = setting.shape.tensor_parallel_size
    gathered = Estimate(0.0, 0.0, 0.0)
    if tp > 1:
        each = gathered_bytes_per_logit() * logits
        gathered = Estimate(each, each, each)
    if setting.runner == "V2":
        return sampler_bytes_per_logit("v2").scaled(logits).plus(gathered)
    peak = sampler_bytes_per_logit(setting.version.sampler).scaled(logits)
    if drafted:
        peak = peak.plus(sampler_bytes_per_logit("drafts").scaled(logits))
    return peak
