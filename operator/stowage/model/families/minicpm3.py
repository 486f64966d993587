"""MiniCPM3: projections of latent attention, but whole keys and values in the cache, and ends on all stages.

The engine has no latent cache for it: every query head has its own key and value of the key's size, values
being padded to it. Source: vLLM's model_executor/models/{minicpm3,minicpm}.py (0.32.0); class defaults of
transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import gated_mlp, whole
from stowage.model.config_fields import count, flag, refuse_features
from stowage.model.families.latent_parts import expanded_attention, read_latent_attention
from stowage.model.families.moe_layers import outer_tensors
from stowage.model.profile import AttentionProfile, LayerProfile, MlpProfile
from stowage.model.rope import read_rope

_DEFAULTS: Final = {"kv_lora_rank": 256, "q_lora_rank": 768, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32}


def read_minicpm3(config: Mapping[str, Any]) -> Anatomy:
    """Read a MiniCPM3 model; raises BadField for missing, wrong or not supported values."""
    refuse_features(config, "text_config", "vision_config", "num_experts")
    hidden_size, vocab_size = count(config, "hidden_size"), count(config, "vocab_size")
    value_dim = hidden_size // count(config, "num_attention_heads")
    sizes = read_latent_attention(config, {**_DEFAULTS, "v_head_dim": value_dim})
    mlp, prefix = MlpProfile(count(config, "intermediate_size")), "model.layers.{}"
    head_dim = sizes.qk_nope_head_dim + sizes.qk_rope_head_dim
    layer = LayerProfile(
        (AttentionProfile(sizes.num_heads, sizes.num_heads, head_dim),),
        mlp,
        (
            *expanded_attention(f"{prefix}.self_attn", sizes, hidden_size),
            *gated_mlp(f"{prefix}.mlp", mlp, hidden_size),
            whole(f"{prefix}.input_layernorm.weight", (hidden_size,)),
            whole(f"{prefix}.post_attention_layernorm.weight", (hidden_size,)),
        ),
    )
    rope, tied = read_rope(config, sizes.qk_rope_head_dim), flag(config, "tie_word_embeddings", True)
    return Anatomy(
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        layers=(layer,) * count(config, "num_hidden_layers"),
        outer_tensors=outer_tensors(vocab_size, hidden_size, rope.cache, tied=tied, everywhere=True),
        tie_word_embeddings=tied,
        rope=rope,
    )


READERS: Final = {"MiniCPM3ForCausalLM": read_minicpm3}
"""The architectures of this file and their readers."""
