"""Falcon-H1: attention and a Mamba 2 mixer side by side in every layer, so every layer has two caches.

Source: vllm/model_executor/models/falcon_h1.py (0.32.0) and FalconH1Config of transformers. The vector of
multipliers that each mixer keeps is a buffer: it is not in the checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import Tensors, embedding_and_head, gated_mlp, rope_tables, whole
from stowage.model.config_fields import count, flag, refuse_features
from stowage.model.families.hybrid.granite import mamba2_state
from stowage.model.families.hybrid.mixers import MixerBiases, mamba2
from stowage.model.families.hybrid.parts import grouped_query, with_defaults
from stowage.model.families.moe_layers import engine_names, self_attention
from stowage.model.profile import LayerProfile, MlpProfile, StateProfile
from stowage.model.rope import read_rope
from stowage.model.tensors import ParameterTensor, Place, Shard, StateRows

DEFAULTS: Final[Mapping[str, Any]] = {
    "vocab_size": 128000,
    "tie_word_embeddings": False,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "mamba_n_heads": 128,
    "mamba_n_groups": 1,
    "mamba_d_state": 256,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_conv_bias": True,
    "mamba_proj_bias": False,
    "mamba_rms_norm": False,
}
"""Class defaults of transformers' FalconH1Config."""

_INNER_SIZE: Final = 1024
"""Class default of mamba_d_ssm; null stands for mamba_expand × hidden_size instead."""

_LAYER: Final = "model.layers.{}"


def read_falcon_h1(config: Mapping[str, Any]) -> Anatomy:
    """Read one model; raises BadField for missing, wrong or not supported values."""
    fields = with_defaults(config, DEFAULTS)
    refuse_features(fields)
    hidden_size, vocab_size = count(fields, "hidden_size"), count(fields, "vocab_size")
    heads = count(fields, "num_attention_heads")
    attention = grouped_query(fields, count(fields, "head_dim", hidden_size // heads))
    rotary = count(fields, "attn_rotary_emb", attention.head_dim)
    rope = read_rope({**fields, "partial_rotary_factor": rotary / attention.head_dim}, attention.head_dim)
    state, mlp = _state(config, fields, hidden_size), MlpProfile(count(fields, "intermediate_size"))
    tensors = (
        *self_attention(f"{_LAYER}.self_attn", attention, hidden_size),
        *_mixer(fields, state, hidden_size),
        *gated_mlp(f"{_LAYER}.feed_forward", mlp, hidden_size),
        whole(f"{_LAYER}.input_layernorm.weight", (hidden_size,)),
        whole(f"{_LAYER}.pre_ff_layernorm.weight", (hidden_size,)),
    )
    tied = flag(fields, "tie_word_embeddings")
    return Anatomy(
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        layers=(LayerProfile((attention, state), mlp, tensors),) * count(fields, "num_hidden_layers"),
        outer_tensors=(
            *embedding_and_head(vocab_size, hidden_size, tied=tied),
            whole("model.final_layernorm.weight", (hidden_size,), place=Place.LAST),
            *rope_tables(rope.cache),
        ),
        tie_word_embeddings=tied,
        rope=rope,
    )


READERS: Final = {"FalconH1ForCausalLM": read_falcon_h1}
"""The architectures of this file and their readers."""


def _state(config: Mapping[str, Any], fields: Mapping[str, Any], hidden_size: int) -> StateProfile:
    unset = "mamba_d_ssm" in config and config["mamba_d_ssm"] is None
    expanded = count(fields, "mamba_expand") * hidden_size
    return mamba2_state(fields, expanded if unset else count(fields, "mamba_d_ssm", _INNER_SIZE))


def _mixer(fields: Mapping[str, Any], state: StateProfile, hidden_size: int) -> Tensors:
    biases = MixerBiases(
        flag(fields, "mamba_proj_bias"), flag(fields, "mamba_conv_bias"), flag(fields, "mamba_rms_norm")
    )
    prefix = f"{_LAYER}.mamba"
    tensors = engine_names(mamba2(prefix, state, hidden_size, biases), prefix, f"{prefix}.mamba")
    divided, group = 2 * state.inner_size + state.num_heads, 2 * state.state_size
    multipliers = ParameterTensor(
        f"{prefix}.mup_vector",
        (divided + state.num_groups * group,),
        Shard.STATE_GROUPS,
        Place.LAYER,
        state_rows=StateRows(divided, state.num_groups, group),
    )
    return (*tensors, multipliers)
