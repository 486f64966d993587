"""Qwen3-Next and Qwen3.5 and later: three gated delta nets to one gated attention layer.

Queries come with a gate of their size. Feed-forward blocks are dense, or experts with one shared expert that has
a gate. Qwen3.5 nests the language model in `text_config` beside a vision tower, and its checkpoint holds one
layer for multi-token prediction. Sources: vllm/model_executor/models/{qwen3_next,qwen3_next_mtp,qwen3_5,
qwen3_5_mtp}.py (0.32.0) and the class defaults of transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import Tensors, embedding_and_head, whole
from stowage.model.config_fields import BadField, count, flag, mapping, refuse_features, text_config, word
from stowage.model.families.hybrid.parts import (
    attention_rope,
    grouped_query,
    state_dtype,
    with_defaults,
    words,
)
from stowage.model.families.hybrid.qwen_layers import QwenHybrid, QwenParts, qwen_draft_layers, qwen_layer
from stowage.model.families.moe_layers import engine_names, indices, repeat_layers
from stowage.model.families.tower_parts import TowerAnatomy
from stowage.model.families.vision.qwen import read_qwen3_tower
from stowage.model.profile import StateProfile
from stowage.model.rope import Rope, read_rope
from stowage.model.tensors import Place

_SHARED_DEFAULTS: Final[Mapping[str, Any]] = {
    "attn_output_gate": True,
    "decoder_sparse_step": 1,
    "full_attention_interval": 4,
    "head_dim": 256,
    "hidden_size": 2048,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_value_head_dim": 128,
    "max_position_embeddings": 32768,
    "moe_intermediate_size": 512,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "partial_rotary_factor": 0.25,
    "qkv_bias": False,
    "shared_expert_intermediate_size": 512,
    "tie_word_embeddings": False,
}


_NEXT_DEFAULTS: Final = {
    **_SHARED_DEFAULTS,
    "intermediate_size": 5632,
    "num_experts": 512,
    "num_experts_per_tok": 10,
    "num_hidden_layers": 48,
    "vocab_size": 151936,
}
_DENSE_DEFAULTS: Final = {
    **_SHARED_DEFAULTS,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_experts": 0,
    "num_hidden_layers": 32,
    "num_key_value_heads": 4,
    "vocab_size": 248320,
}
_MOE_DEFAULTS: Final = {
    **_SHARED_DEFAULTS,
    "num_experts": 256,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 40,
    "vocab_size": 248320,
}
FAMILIES: Final[Mapping[str, QwenHybrid]] = {
    "Qwen3NextForCausalLM": QwenHybrid(
        _NEXT_DEFAULTS, fused=True, stacked=False, mtp_field="num_nextn_predict_layers"
    ),
    "Qwen3_5ForCausalLM": QwenHybrid(_DENSE_DEFAULTS),
    "Qwen3_5MoeForCausalLM": QwenHybrid(_MOE_DEFAULTS),
    "Qwen3_5ForConditionalGeneration": QwenHybrid(
        _DENSE_DEFAULTS, stored="model.language_model", engine="language_model.model"
    ),
    "Qwen3_5MoeForConditionalGeneration": QwenHybrid(
        _MOE_DEFAULTS, stored="model.language_model", engine="language_model.model"
    ),
}

_KINDS: Final = {"linear_attention": "linear_attention", "full_attention": "full_attention"}


def read_qwen_hybrid(config: Mapping[str, Any], family: QwenHybrid) -> Anatomy:
    """Read the language model of one of these; raises BadField for missing, wrong or not supported values."""
    parts = _parts(config, family)
    fields, hidden_size = parts.fields, parts.hidden_size
    refuse_features(fields, "dual_chunk_attention_config", "layer_scale")
    number, vocab_size = count(fields, "num_hidden_layers"), count(fields, "vocab_size")
    kinds, tower = _kinds(fields, number), _tower(config, family)
    dense = indices(fields, "mlp_only_layers") if family.fused else frozenset()
    rope, tied = (
        _rope(fields, parts.attention.head_dim, family),
        flag(fields, "tie_word_embeddings"),
    )
    layers = repeat_layers(
        number,
        lambda index: (kinds[index], _has_experts(fields, index, dense)),
        lambda kind: qwen_layer(parts, kind[0], has_experts=kind[1]),
    )
    return Anatomy(
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        layers=layers,
        outer_tensors=(
            *tower.tensors,
            *_ends(family, vocab_size, hidden_size, tied),
            *attention_rope(rope, layers),
        ),
        tie_word_embeddings=tied,
        rope=rope,
        draft_layers=qwen_draft_layers(parts, has_experts=_has_experts(fields, number, dense)),
        encoders=tower.encoders,
    )


READERS: Final = {name: partial(read_qwen_hybrid, family=family) for name, family in FAMILIES.items()}
"""The architectures of this file and their readers."""


def _parts(config: Mapping[str, Any], family: QwenHybrid) -> QwenParts:
    fields = with_defaults(text_config(config), family.defaults)
    attention = grouped_query(
        fields, count(fields, "head_dim"), qkv_bias=flag(fields, "qkv_bias"), qk_norm=True
    )
    state = StateProfile(
        "gated-delta-net",
        conv_kernel=count(fields, "linear_conv_kernel_dim"),
        num_heads=count(fields, "linear_num_value_heads"),
        head_dim=count(fields, "linear_value_head_dim"),
        key_heads=count(fields, "linear_num_key_heads"),
        key_dim=count(fields, "linear_key_head_dim"),
        # Qwen3-Next has no such field, and the engine does not look for one there.
        state_dtype=None if family.fused else state_dtype(fields, "mamba_ssm_dtype"),
    )
    settings = config.get("quantization_config") or text_config(config).get("quantization_config")
    quantized = word(settings, "quant_method") if isinstance(settings, Mapping) else None
    return QwenParts(family, fields, attention, state, quantized)


def _rope(fields: Mapping[str, Any], head_dim: int, family: QwenHybrid) -> Rope:
    """Read the rotary table; the engine forgets about images where there is only a language model."""
    parameters = dict(mapping(fields, "rope_parameters"))
    if family.stored == family.engine:
        parameters.pop("mrope_section", None)
    return read_rope({**fields, "rope_parameters": parameters or None}, head_dim, mrope_factor=1)


def _tower(config: Mapping[str, Any], family: QwenHybrid) -> TowerAnatomy:
    """Read the vision tower of the nested architectures; it is the one of Qwen3-VL without deep features."""
    if family.stored == family.engine:
        return TowerAnatomy((), ())
    return read_qwen3_tower({"deepstack_visual_indexes": [], **mapping(config, "vision_config")})


def _kinds(fields: Mapping[str, Any], number: int) -> tuple[str, ...]:
    interval = count(fields, "full_attention_interval")
    kinds = words(fields, "layer_types", _KINDS) or tuple(
        "linear_attention" if (index + 1) % interval else "full_attention" for index in range(number)
    )
    if len(kinds) < number:
        raise BadField(f"config.json has layer_types for {len(kinds)} layers, fewer than {number}.")
    return kinds


def _has_experts(fields: Mapping[str, Any], index: int, dense: frozenset[int]) -> bool:
    if fields["num_experts"] == 0 or index in dense:
        return False
    return (index + 1) % count(fields, "decoder_sparse_step") == 0


def _ends(family: QwenHybrid, vocab_size: int, hidden_size: int, tied: bool) -> Tensors:
    embedding, *head = embedding_and_head(
        vocab_size, hidden_size, tied=tied, embedding=f"{family.stored}.embed_tokens"
    )
    ends = (
        replace(embedding, place=Place.EVERY),
        *head,
        whole(f"{family.stored}.norm.weight", (hidden_size,), place=Place.LAST),
    )
    if family.stored == family.engine:
        return ends
    return engine_names(engine_names(ends, family.stored, family.engine), "lm_head", "language_model.lm_head")
