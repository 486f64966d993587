"""Step 3 and Step 3.5: experts stored in stacks, one shared expert, and two kinds of attention.

Step 3 projects queries through a shared narrow layer that all ranks hold whole; Step 3.5 mixes windows and
full attention with different numbers of heads and gates the output. Sources:
`vllm/model_executor/models/{step3_text,step3p5}.py` and the engine's own configuration classes (0.32.0).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import (
    Tensors,
    attention_output,
    cache_scales,
    column_linear,
    gated_mlp,
    whole,
)
from stowage.model.config_fields import BadField, count, flag, mapping, refuse_features, word
from stowage.model.families.moe_layers import (
    Config,
    Router,
    engine_names,
    list_of,
    outer_tensors,
    read_head_dim,
    repeat_layers,
    router_tensors,
    self_attention,
    stacked_experts,
)
from stowage.model.profile import AttentionProfile, LayerProfile, MlpProfile, MoeProfile
from stowage.model.rope import Rope, read_rope
from stowage.model.tensors import Linear, ParameterTensor, Place, Shard, StoredTensor

_LAYER: Final = "model.layers.{}"


def read_step3_text(config: Config) -> Anatomy:
    """Read the text model of Step 3; raises BadField for missing, wrong or not supported values."""
    refuse_features(config, "text_config")
    hidden_size, vocab_size = count(config, "hidden_size"), count(config, "vocab_size")
    heads, head_dim = count(config, "num_attention_heads"), count(config, "head_dim", 256)
    attention, query = AttentionProfile(heads, 1, head_dim), count(config, "share_q_dim", 2048)
    sparse = _sparse_layers(config, range(4, 60))
    positions = count(config, "max_position_embedding", 65536)
    rope = read_rope({**config, "max_position_embeddings": positions}, head_dim)
    own = _narrow_attention(f"{_LAYER}.self_attn", attention, query, hidden_size)
    return Anatomy(
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        layers=repeat_layers(
            count(config, "num_hidden_layers"),
            sparse.__contains__,
            lambda kind: _layer(config, attention, own, sparse=kind, shared=f"{_LAYER}.share_expert"),
        ),
        outer_tensors=outer_tensors(vocab_size, hidden_size, rope.cache, tied=False),
        tie_word_embeddings=False,
        rope=rope,
    )


def read_step3p5(config: Config) -> Anatomy:
    """Read a Step 3.5 model; raises BadField for missing, wrong or not supported values."""
    refuse_features(config, "text_config")
    hidden_size, vocab_size = count(config, "hidden_size"), count(config, "vocab_size")
    number, sparse = count(config, "num_hidden_layers"), _sparse_layers(config, None)
    kinds = list_of(config, "layer_types", number) or [
        "full_attention" if layer % 2 else "sliding_attention" for layer in range(number)
    ]

    def make(kind: tuple[str, bool]) -> LayerProfile:
        attention = _mixed_attention(config, kind[0])
        own = _gated_attention(config, attention, hidden_size)
        return _layer(config, attention, own, sparse=kind[1], shared=f"{_LAYER}.moe.share_expert")

    ropes = _ropes(config, kinds[:number])
    return Anatomy(
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        layers=repeat_layers(number, lambda layer: (kinds[layer], layer in sparse), make),
        outer_tensors=outer_tensors(vocab_size, hidden_size, *(rope.cache for rope in ropes), tied=False),
        tie_word_embeddings=False,
        rope=max(ropes, key=lambda rope: rope.max_model_len),
    )


READERS: Final = {
    "Step3TextForCausalLM": partial(read_step3_text),
    "Step3p5ForCausalLM": partial(read_step3p5),
}
"""The architectures of this file and their readers."""


def _sparse_layers(config: Config, default: range | None) -> frozenset[int]:
    """Read moe_layers_enum, a text like "4,5,6"; where it is absent, all layers but the first are sparse."""
    stated = word(config, "moe_layers_enum")
    if stated is None:
        return frozenset(default or range(1, count(config, "num_hidden_layers")))
    try:
        return frozenset(int(number) for number in stated.strip().split(","))
    except ValueError:
        raise BadField(
            f"config.json says moe_layers_enum: {stated!r}; it must be numbers and commas."
        ) from None


def _narrow_attention(prefix: str, attention: AttentionProfile, query: int, hidden_size: int) -> Tensors:
    """Give attention whose queries come from a narrow layer that every rank holds whole."""
    head_dim, wide = attention.head_dim, attention.num_heads * attention.head_dim
    rows = {"q_proj": query, "k_proj": head_dim, "v_proj": head_dim}
    names = tuple(f"{prefix}.{part}" for part in rows)
    total = (sum(rows.values()), hidden_size)
    kept = tuple(StoredTensor(f"{prefix}.{part}.weight", (size, hidden_size)) for part, size in rows.items())
    linear = Linear(f"{prefix}.qkv_proj", names, tuple(rows.values()))
    return (
        ParameterTensor(
            f"{prefix}.qkv_proj.weight", total, Shard.REPLICATED, Place.LAYER, stored=kept, linear=linear
        ),
        whole(f"{prefix}.inter_norm.weight", (query,)),
        *column_linear(f"{prefix}.wq", {f"{prefix}.wq": wide}, query),
        *attention_output(prefix, attention, hidden_size),
        *cache_scales(f"{prefix}.attn"),
    )


def _mixed_attention(config: Config, kind: str) -> AttentionProfile:
    other = mapping(config, "attention_other_setting")
    own: Config = other if other and word(other, "attention_type") == kind else {}
    heads = count(own, "num_attention_heads", count(config, "num_attention_heads"))
    kv_heads = count(own, "num_attention_groups", count(config, "num_attention_groups"))
    if heads % kv_heads:
        raise BadField(
            f"config.json says num_attention_groups: {kv_heads}; it must divide {heads} attention heads."
        )
    windowed = kind == "sliding_attention" and config.get("sliding_window") is not None
    return AttentionProfile(
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=count(own, "head_dim", read_head_dim(config, heads)),
        qkv_bias=flag(config, "attention_bias"),
        qk_norm=True,
        sliding_window=count(config, "sliding_window") if windowed else None,
    )


def _gated_attention(config: Config, attention: AttentionProfile, hidden_size: int) -> Tensors:
    prefix = f"{_LAYER}.self_attn"
    tensors = self_attention(prefix, attention, hidden_size)
    if not flag(config, "use_head_wise_attn_gate"):
        return tensors
    return (
        *tensors,
        *column_linear(f"{prefix}.g_proj", {f"{prefix}.g_proj": attention.num_heads}, hidden_size),
    )


def _ropes(config: Config, kinds: list[str]) -> list[Rope]:
    """Give the distinct rotary tables: layers differ in base, in their rotary share and in whether they scale."""
    number, ropes = len(kinds), dict[str, Rope]()
    bases = config.get("rope_theta", 500000)
    shares = list_of(config, "partial_rotary_factors", number)
    scaled, plain = mapping(config, "rope_scaling"), {"rope_type": "default"}
    only = config.get("yarn_only_types")
    for layer, kind in enumerate(kinds):
        scaling: Mapping[str, Any] = plain if only and kind not in only else scaled or plain
        share = shares[layer] if shares else 1.0
        base = bases[layer] if isinstance(bases, list) else bases
        parameters = {**scaling, "partial_rotary_factor": share}
        key = repr((base, sorted(parameters.items(), key=str)))
        if key not in ropes:
            own = {**config, "rope_parameters": parameters, "rope_scaling": None}
            ropes[key] = read_rope(own, _mixed_attention(config, kind).head_dim)
    return list(ropes.values())


def _layer(
    config: Config, attention: AttentionProfile, own: Tensors, *, sparse: bool, shared: str
) -> LayerProfile:
    hidden_size = count(config, "hidden_size")
    tensors = (
        *own,
        whole(f"{_LAYER}.input_layernorm.weight", (hidden_size,)),
        whole(f"{_LAYER}.post_attention_layernorm.weight", (hidden_size,)),
    )
    if not sparse:
        mlp = MlpProfile(count(config, "intermediate_size"))
        return LayerProfile((attention,), mlp, (*tensors, *gated_mlp(f"{_LAYER}.mlp", mlp, hidden_size)))
    inner, top_k = count(config, "moe_intermediate_size"), count(config, "moe_top_k")
    moe = MoeProfile(
        num_experts=count(config, "moe_num_experts"),
        num_experts_per_tok=top_k,
        intermediate_size=inner,
        shared_intermediate_size=count(config, "share_expert_dim", inner * top_k),
    )
    corrected = shared != f"{_LAYER}.share_expert"
    return LayerProfile((attention,), moe, (*tensors, *_sparse_block(moe, hidden_size, shared, corrected)))


def _sparse_block(moe: MoeProfile, hidden_size: int, shared: str, corrected: bool) -> Tensors:
    """Give experts, router and shared expert; with a correction the router is kept in 32 bits (Step 3.5)."""
    block, inner, number = f"{_LAYER}.moe", moe.intermediate_size, moe.num_experts
    up = tuple(
        StoredTensor(f"{block}.{part}.weight", (number, inner, hidden_size))
        for part in ("gate_proj", "up_proj")
    )
    down = StoredTensor(f"{block}.down_proj.weight", (number, hidden_size, inner))
    rule = Router(fp32=True, correction="router_bias") if corrected else Router()
    stored = f"{_LAYER}.share_expert"
    mlp = gated_mlp(stored, MlpProfile(moe.shared_intermediate_size), hidden_size)
    return (
        *router_tensors(block, rule, number, hidden_size, stored=block),
        *stacked_experts(f"{block}.experts", moe, hidden_size, gate_up=up, down=down),
        *engine_names(mlp, stored, shared),
    )
