"""The layers of Qwen3-Next and Qwen3.5: gated delta nets, gated attention, and what follows either.

`qwen` reads config.json and says which layer is of which kind; here is what each kind consists of. Names
are the checkpoint's until a layer is handed out, when they become the engine's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from stowage.model.blocks import (
    Tensors,
    attention_output,
    cache_scales,
    column_linear,
    experts,
    gated_mlp,
    head_norms,
    qkv_linear,
    router,
    whole,
)
from stowage.model.config_fields import count, flag
from stowage.model.families.hybrid.mixers import gated_delta_net
from stowage.model.families.hybrid.parts import shared_expert
from stowage.model.families.moe_layers import engine_names, shared_gate, stacked_experts
from stowage.model.profile import AttentionProfile, LayerProfile, MlpProfile, MoeProfile, StateProfile
from stowage.model.tensors import Shard, StoredTensor

_REPLICATES_NARROW: Final = frozenset({"awq", "gptq", "auto-round", "auto_round", "inc", "awq_marlin"})
"""Methods under which the engine keeps the narrow projection of Qwen3.5 whole (maybe_disable_tp)."""


@dataclass(frozen=True, slots=True)
class QwenHybrid:
    """How one architecture differs: class defaults, fused delta-net projections, and where layers are named.

    `fused`: the checkpoint holds the delta net's projections as the engine does. `stacked`: unquantised
    checkpoints hold all experts of a layer in one tensor. `stored` and `engine` are the prefixes of the
    language model's modules, `mtp_field` the number of layers for multi-token prediction.
    """

    defaults: Mapping[str, Any]
    fused: bool = False
    stacked: bool = True
    stored: str = "model"
    engine: str = "model"
    mtp_field: str = "mtp_num_hidden_layers"


@dataclass(frozen=True, slots=True)
class QwenParts:
    """What all layers of one model are built from."""

    family: QwenHybrid
    fields: Mapping[str, Any]
    attention: AttentionProfile
    state: StateProfile
    quantized: str | None

    @property
    def hidden_size(self) -> int:
        """Elements of a token's vector between layers."""
        return count(self.fields, "hidden_size")


def qwen_layer(parts: QwenParts, kind: str, *, has_experts: bool) -> LayerProfile:
    """Give a decoder layer of a kind ("linear_attention" or "full_attention") under the engine's names."""
    prefix = f"{parts.family.stored}.layers.{{}}"
    layer = _block(parts, prefix, kind, has_experts=has_experts)
    return replace(layer, tensors=engine_names(layer.tensors, parts.family.stored, parts.family.engine))


def _block(parts: QwenParts, prefix: str, kind: str, *, has_experts: bool) -> LayerProfile:
    norms = tuple(
        whole(f"{prefix}.{name}.weight", (parts.hidden_size,))
        for name in ("input_layernorm", "post_attention_layernorm")
    )
    feed_forward, forward_tensors = (_experts if has_experts else _dense)(parts, f"{prefix}.mlp")
    if kind == "full_attention":
        tensors = _attention(parts, f"{prefix}.self_attn")
        return LayerProfile((parts.attention,), feed_forward, (*tensors, *forward_tensors, *norms))
    tensors = _delta_net(parts, f"{prefix}.linear_attn")
    return LayerProfile((parts.state,), feed_forward, (*tensors, *forward_tensors, *norms))


def _attention(parts: QwenParts, prefix: str) -> Tensors:
    factor = 2 if flag(parts.fields, "attn_output_gate") else 1
    return (
        *qkv_linear(prefix, parts.attention, parts.hidden_size, query_factor=factor),
        *attention_output(prefix, parts.attention, parts.hidden_size),
        *head_norms(prefix, parts.attention),
        *cache_scales(f"{prefix}.attn"),
    )


def _delta_net(parts: QwenParts, prefix: str) -> Tensors:
    names = None if parts.family.fused else ("in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a")
    tensors = gated_delta_net(prefix, parts.state, parts.hidden_size, names)
    if parts.family.fused or parts.quantized not in _REPLICATES_NARROW:
        return tensors
    return tuple(
        replace(tensor, shard=Shard.REPLICATED) if ".in_proj_ba." in tensor.name else tensor
        for tensor in tensors
    )


def _dense(parts: QwenParts, prefix: str) -> tuple[MlpProfile | MoeProfile, Tensors]:
    mlp = MlpProfile(count(parts.fields, "intermediate_size"))
    return mlp, gated_mlp(prefix, mlp, parts.hidden_size)


def _experts(parts: QwenParts, prefix: str) -> tuple[MlpProfile | MoeProfile, Tensors]:
    fields, hidden_size = parts.fields, parts.hidden_size
    shared = fields["shared_expert_intermediate_size"] and count(fields, "shared_expert_intermediate_size")
    moe = MoeProfile(
        num_experts=count(fields, "num_experts"),
        num_experts_per_tok=count(fields, "num_experts_per_tok"),
        intermediate_size=count(fields, "moe_intermediate_size"),
        shared_intermediate_size=shared,
    )
    tensors = (
        *router(f"{prefix}.gate", moe.num_experts, hidden_size),
        *shared_gate(f"{prefix}.shared_expert_gate", hidden_size),
        *_routed(parts, moe, f"{prefix}.experts"),
    )
    if shared:
        tensors += shared_expert(gated_mlp(f"{prefix}.shared_expert", MlpProfile(shared), hidden_size))
    return moe, tensors


def _routed(parts: QwenParts, moe: MoeProfile, prefix: str) -> Tensors:
    """Give the routed experts: one tensor for all in plain checkpoints, one an expert in quantised ones."""
    hidden_size, number, inner = parts.hidden_size, moe.num_experts, moe.intermediate_size
    if not parts.family.stacked or parts.quantized is not None:
        return experts(prefix, moe, hidden_size, stored=f"{prefix}.{{}}")
    up = StoredTensor(f"{prefix}.gate_up_proj", (number, 2 * inner, hidden_size))
    down = StoredTensor(f"{prefix}.down_proj", (number, hidden_size, inner))
    return stacked_experts(prefix, moe, hidden_size, gate_up=(up,), down=down)


def qwen_draft_layers(parts: QwenParts, *, has_experts: bool) -> tuple[LayerProfile, ...]:
    """Read the layers of multi-token prediction, which take in an embedding and a hidden state.

    Embedding and head are the model's own; what stands outside of the layers is counted with the first.
    """
    field, hidden_size = parts.family.mtp_field, parts.hidden_size
    number = 0 if parts.fields.get(field) == 0 else count(parts.fields, field, 1)
    if not number:
        return ()
    layer = _block(parts, "mtp.layers.{}", "full_attention", has_experts=has_experts)
    outside = (
        *column_linear("mtp.fc", {"mtp.fc": hidden_size}, 2 * hidden_size),
        *(
            whole(f"mtp.{name}.weight", (hidden_size,))
            for name in ("norm", "pre_fc_norm_hidden", "pre_fc_norm_embedding")
        ),
    )
    first = replace(layer, tensors=(*layer.tensors, *outside))
    return (first, *(layer,) * (number - 1))
