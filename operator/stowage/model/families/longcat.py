"""LongCat-Flash: each layer has two latent attentions, two dense blocks, and experts beside them.

Some experts are identities: the router scores them, but they have no weights. Source: vLLM's
model_executor/models/{longcat_flash,longcat_flash_mtp}.py (0.32.0); class defaults of transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import Tensors, experts, gated_mlp, replicated_linear, whole
from stowage.model.config_fields import BadField, count, refuse_features
from stowage.model.families.latent_parts import latent_attention, read_latent_attention
from stowage.model.families.moe_layers import Router, outer_tensors, router_tensors
from stowage.model.profile import LatentAttentionProfile, LayerProfile, MlpProfile, MoeProfile
from stowage.model.rope import read_rope

_DEFAULTS: Final = {
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
}
_ROUTER: Final = Router(
    "router.classifier",
    fp32=True,
    correction="router.e_score_correction_bias",
)
_PREFIX: Final = "model.layers.{}"


def read_longcat(config: Mapping[str, Any]) -> Anatomy:
    """Read a LongCat-Flash model; raises BadField for missing, wrong or not supported values."""
    refuse_features(config, "text_config", "vision_config", "ngram_vocab_size_ratio")
    hidden_size, vocab_size = count(config, "hidden_size"), count(config, "vocab_size")
    attention = read_latent_attention(config, _DEFAULTS)
    moe, dense = _sizes(config)
    layer = LayerProfile(
        (attention, attention),
        moe,
        (
            *(tensor for half in "01" for tensor in _half(half, attention, dense, hidden_size)),
            *_experts(config, moe, hidden_size),
        ),
    )
    rope = read_rope(config, attention.qk_rope_head_dim)
    return Anatomy(
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        layers=(layer,) * _number_of_layers(config),
        outer_tensors=outer_tensors(vocab_size, hidden_size, rope.cache, tied=False),
        tie_word_embeddings=False,
        rope=rope,
        draft_layers=(_draft(attention, dense, hidden_size),),
    )


READERS: Final = {"LongcatFlashForCausalLM": read_longcat}
"""The architectures of this file and their readers."""


def _number_of_layers(config: Mapping[str, Any]) -> int:
    """Count the layers; num_hidden_layers counts attentions, of which a layer has two."""
    if config.get("num_layers") is not None:
        return count(config, "num_layers")
    attentions = count(config, "num_hidden_layers", 56)
    return attentions // 2


def _sizes(config: Mapping[str, Any]) -> tuple[MoeProfile, MlpProfile]:
    """Read the experts and the dense blocks, which stand beside them like shared experts."""
    dense = count(config, "ffn_hidden_size", config.get("intermediate_size") or 12288)
    moe = MoeProfile(
        num_experts=count(config, "n_routed_experts", 512),
        num_experts_per_tok=count(config, "moe_topk", 12),
        intermediate_size=count(
            config, "expert_ffn_hidden_size", config.get("moe_intermediate_size") or 2048
        ),
        shared_intermediate_size=dense,
    )
    return moe, MlpProfile(dense)


def _half(half: str, attention: LatentAttentionProfile, dense: MlpProfile, hidden_size: int) -> Tensors:
    return (
        *latent_attention(f"{_PREFIX}.self_attn.{half}", attention, hidden_size),
        *gated_mlp(f"{_PREFIX}.mlps.{half}", dense, hidden_size),
        whole(f"{_PREFIX}.input_layernorm.{half}.weight", (hidden_size,)),
        whole(f"{_PREFIX}.post_attention_layernorm.{half}.weight", (hidden_size,)),
    )


def _experts(config: Mapping[str, Any], moe: MoeProfile, hidden_size: int) -> Tensors:
    identities = config.get("zero_expert_num", 256)
    if type(identities) is not int or identities < 0:
        raise BadField("config.json has zero_expert_num that is not a whole number of at least 0.")
    block = f"{_PREFIX}.mlp"
    return (
        *router_tensors(block, _ROUTER, moe.num_experts + identities, hidden_size, stored=block),
        *experts(f"{block}.experts", moe, hidden_size, stored=f"{block}.experts.{{}}"),
    )


def _draft(attention: LatentAttentionProfile, dense: MlpProfile, hidden_size: int) -> LayerProfile:
    """Give the layer for multi-token prediction: one attention, one dense block, no experts."""
    block = f"{_PREFIX}.mtp_block"
    norms = ("enorm", "hnorm", "final_layernorm", "mtp_block.input_layernorm")
    return LayerProfile(
        (attention,),
        dense,
        (
            *(
                whole(f"{_PREFIX}.{norm}.weight", (hidden_size,))
                for norm in (*norms, "mtp_block.post_attention_layernorm")
            ),
            *replicated_linear(f"{_PREFIX}.eh_proj", hidden_size, 2 * hidden_size),
            *latent_attention(f"{block}.self_attn", attention, hidden_size),
            *gated_mlp(f"{block}.mlp", dense, hidden_size),
        ),
    )
