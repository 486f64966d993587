"""Kimi-Linear: three Kimi delta attention (KDA) layers to one of latent attention, with experts.

Nothing is rotated (mla_use_nope). KDA keeps its convolutions, `A_log` and `dt_bias` in 32 bits. Source:
vllm/models/kimi_k3/nvidia/{model,mla}.py and layers/mamba/gdn/kimi_gdn_linear_attn.py (0.32.0); fields that
only the far larger Kimi-K3 has (full-rank gate, residual attention, latent experts) are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import (
    Tensors,
    column_linear,
    embedding_and_head,
    experts,
    gated_mlp,
    replicated_linear,
    row_linear,
    whole,
)
from stowage.model.config_fields import BadField, count, mapping, refuse_features
from stowage.model.families.hybrid.mixers import FLOAT32_BYTES
from stowage.model.families.hybrid.parts import divided, shared_expert, with_defaults
from stowage.model.families.latent_parts import latent_attention, read_latent_attention
from stowage.model.families.moe_layers import Router, engine_names, indices, repeat_layers, router_tensors
from stowage.model.profile import (
    LatentAttentionProfile,
    LayerProfile,
    MlpProfile,
    MoeProfile,
    StateProfile,
)
from stowage.model.rope import no_rope
from stowage.model.tensors import ParameterTensor, Place, Shard, StateRows, StoredTensor

DEFAULTS: Final[Mapping[str, Any]] = {
    "vocab_size": 163840,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 4096,
    "num_shared_experts": 0,
    "first_k_dense_replace": 0,
    "moe_layer_freq": 1,
    "min_moe_intermediate_per_partition": 256,
}
"""Class defaults of vLLM's KimiLinearConfig, and of the engine for a field that it does not have."""

_LAYER: Final = "model.layers.{}"
_ATTENTION: Final = f"{_LAYER}.self_attn"


def read_kimi_linear(config: Mapping[str, Any]) -> Anatomy:
    """Read one model; raises BadField for missing, wrong or not supported values."""
    fields = with_defaults(config, DEFAULTS)
    refuse_features(
        fields,
        "attn_res_block_size",
        "routed_expert_hidden_size",
        "q_lora_rank",
        "mla_use_output_gate",
        "num_nextn_predict_layers",
    )
    if not fields.get("mla_use_nope"):
        raise BadField("config.json has no mla_use_nope: true; the engine serves Kimi-Linear only with it.")
    linear = mapping(fields, "linear_attn_config")
    refuse_features(linear, "use_full_rank_gate")
    recurrent = indices(linear, "kda_layers")
    hidden_size, vocab_size = count(fields, "hidden_size"), count(fields, "vocab_size")
    ends = embedding_and_head(vocab_size, hidden_size, tied=False)
    return Anatomy(
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        layers=repeat_layers(
            count(fields, "num_hidden_layers"),
            lambda index: (index + 1 in recurrent, _has_experts(fields, index)),
            lambda kind: _layer(fields, linear, recurrent=kind[0], has_experts=kind[1]),
        ),
        outer_tensors=(*ends, whole("model.norm.weight", (hidden_size,), place=Place.LAST)),
        tie_word_embeddings=False,
        rope=no_rope(fields),
    )


READERS: Final = {"KimiLinearForCausalLM": read_kimi_linear}
"""The architectures of this file and their readers."""


def _has_experts(fields: Mapping[str, Any], index: int) -> bool:
    dense = fields["first_k_dense_replace"]
    return bool(fields.get("num_experts")) and index >= dense and index % count(fields, "moe_layer_freq") == 0


def _layer(
    fields: Mapping[str, Any], linear: Mapping[str, Any], *, recurrent: bool, has_experts: bool
) -> LayerProfile:
    hidden_size = count(fields, "hidden_size")
    norms = tuple(
        whole(f"{_LAYER}.{name}.weight", (hidden_size,))
        for name in ("input_layernorm", "post_attention_layernorm")
    )
    feed_forward, forward_tensors = (_experts if has_experts else _dense)(fields, hidden_size)
    mixer: StateProfile | LatentAttentionProfile
    if recurrent:
        mixer = _state(linear)
        tensors = _delta_attention(mixer, hidden_size)
    else:
        mixer = read_latent_attention(fields, {})
        tensors = _latent_attention(mixer, hidden_size)
    return LayerProfile((mixer,), feed_forward, (*tensors, *forward_tensors, *norms))


def _state(linear: Mapping[str, Any]) -> StateProfile:
    heads, head_dim = count(linear, "num_heads"), count(linear, "head_dim")
    return StateProfile(
        "kimi-delta",
        conv_kernel=count(linear, "short_conv_kernel_size"),
        num_heads=heads,
        head_dim=head_dim,
        key_heads=heads,
        key_dim=head_dim,
        # What the engine makes of "auto" here, and only here.
        state_dtype="float32",
    )


def _delta_attention(state: StateProfile, hidden_size: int) -> Tensors:
    size, heads, width = state.num_heads * state.head_dim, state.num_heads, state.head_dim
    parts = {"q_proj": size, "k_proj": size, "v_proj": size, "b_proj": heads, "f_a_proj": width}
    (fused,) = column_linear(
        f"{_ATTENTION}.in_proj_qkvgfab",
        {f"{_ATTENTION}.{name}": rows for name, rows in parts.items()},
        hidden_size,
    )
    kernels = tuple(
        StoredTensor(f"{_ATTENTION}.{name}_conv1d.weight", (size, 1, state.conv_kernel)) for name in "qkv"
    )
    kernel = divided(
        f"{_ATTENTION}.conv1d.weight", (3 * size, 1, state.conv_kernel), element_bytes=FLOAT32_BYTES
    )
    decay = divided(f"{_ATTENTION}.A_log", (heads,), element_bytes=FLOAT32_BYTES)
    return (
        # Every rank holds the low-rank input of the forget gate whole.
        replace(fused, shard=Shard.STATE_GROUPS, state_rows=StateRows(3 * size + heads, 1, width)),
        *column_linear(f"{_ATTENTION}.f_b_proj", {f"{_ATTENTION}.f_b_proj": size}, width),
        divided(f"{_ATTENTION}.dt_bias", (size,), element_bytes=FLOAT32_BYTES),
        replace(kernel, stored=kernels),
        replace(decay, stored=(StoredTensor(f"{_ATTENTION}.A_log", (1, 1, heads, 1)),)),
        *replicated_linear(f"{_ATTENTION}.g_a_proj", width, hidden_size),
        *column_linear(f"{_ATTENTION}.g_b_proj", {f"{_ATTENTION}.g_b_proj": size}, width),
        whole(f"{_ATTENTION}.o_norm.weight", (width,)),
        *row_linear(f"{_ATTENTION}.o_proj", hidden_size, size),
    )


def _latent_attention(latent: LatentAttentionProfile, hidden_size: int) -> Tensors:
    # The engine's layer is the attention itself, not a wrapper around it.
    tensors = engine_names(latent_attention(_ATTENTION, latent, hidden_size), ".mla_attn.mla_attn.", ".")
    one = f"{_ATTENTION}._one_scale"
    return (*tensors, ParameterTensor(one, (1,), Shard.REPLICATED, Place.LAYER, element_bytes=FLOAT32_BYTES))


def _dense(fields: Mapping[str, Any], hidden_size: int) -> tuple[MlpProfile | MoeProfile, Tensors]:
    mlp = MlpProfile(count(fields, "intermediate_size"))
    return mlp, gated_mlp(f"{_LAYER}.mlp", mlp, hidden_size)


def _experts(fields: Mapping[str, Any], hidden_size: int) -> tuple[MlpProfile | MoeProfile, Tensors]:
    prefix, inner = f"{_LAYER}.block_sparse_moe", count(fields, "moe_intermediate_size")
    shared = fields["num_shared_experts"] and count(fields, "num_shared_experts") * inner
    moe = MoeProfile(
        num_experts=count(fields, "num_experts"),
        num_experts_per_tok=count(fields, "num_experts_per_token"),
        intermediate_size=inner,
        shared_intermediate_size=shared,
    )
    names = ("w1", "w3", "w2")
    tensors = (
        *router_tensors(
            prefix,
            Router(correction="gate.e_score_correction_bias"),
            moe.num_experts,
            hidden_size,
            stored=prefix,
        ),
        *_padded(
            experts(f"{prefix}.experts", moe, hidden_size, stored=f"{prefix}.experts.{{}}", parts=names),
            count(fields, "min_moe_intermediate_per_partition"),
        ),
    )
    if shared:
        tensors += shared_expert(gated_mlp(f"{prefix}.shared_experts", MlpProfile(shared), hidden_size))
    return moe, tensors


def _padded(tensors: Tensors, least: int) -> Tensors:
    """Set the size below which an expert is not divided; gate and up projection are one tensor."""
    sizes = {Shard.EXPERT_COLUMNS: 2 * least, Shard.EXPERT_ROWS: least}
    return tuple(replace(tensor, least_divided=sizes.get(tensor.shard, 0)) for tensor in tensors)
