"""DeepSeek V4: latent vectors that several tokens share, four residual streams, routing by token at first.

Layers differ by their entry of compress_ratios: none but a window of single tokens is kept (0 and 1), or one
vector for every 4 or 128 tokens too, which a compressor makes; those of 4 have an indexer as well. The
checkpoint has names of its own. Sources: vLLM's models/deepseek_v4/{attention,compressor}.py, common/rope.py
and {cpu,nvidia}/{model,mtp}.py (0.32.0). Backends on GPUs pad the sinks to 64 or 128 heads, 256 bytes a layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import (
    Tensors,
    column_linear,
    experts,
    replicated_linear,
    rope_tables,
    row_linear,
    whole,
)
from stowage.model.config_fields import BadField, UnsupportedFeature, count, mapping, refuse_features, word
from stowage.model.families.latent_parts import never_quantised, replicated_parts
from stowage.model.families.moe_layers import (
    Router,
    list_of,
    outer_tensors,
    repeat_layers,
    router_tensors,
    sinks,
)
from stowage.model.families.tower_parts import renamed, with_prefixes
from stowage.model.profile import LatentAttentionProfile, LayerProfile, MoeProfile
from stowage.model.rope import Rope, read_rope
from stowage.model.tensors import ParameterTensor, Place, StoredTensor

Config = Mapping[str, Any]
Kind = tuple[int, bool]
"""Tokens of one compressed vector (1: none), and whether the router looks experts up by token."""

_PREFIX: Final = "model.layers.{}"
_RATIOS: Final = (1, 4, 128)
_ENGINE_NAMES: Final = with_prefixes({"layers.": "model.layers."})


def read_deepseek_v4(config: Config) -> Anatomy:
    """Read a DeepSeek V4 model; raises BadField for missing, wrong or not supported values."""
    refuse_features(config, "text_config", "vision_n_layers")
    hidden_size, vocab_size = count(config, "hidden_size"), count(config, "vocab_size")
    number = count(config, "num_hidden_layers")
    kinds = _kinds(config, number)
    rope = _rope(config)
    drafts = count(config, "num_nextn_predict_layers", 1) if config.get("num_nextn_predict_layers") else 0
    return Anatomy(
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        layers=repeat_layers(number, kinds.__getitem__, partial(_layer, config)),
        outer_tensors=(
            *_ends(vocab_size, hidden_size),
            *(replace(tensor, place=Place.EVERY) for tensor in _head_streams(config, "model")),
            *_tables(config, rope, kinds),
        ),
        tie_word_embeddings=False,
        rope=rope,
        draft_layers=tuple(_draft(config, index) for index in range(drafts)),
        residual_streams=count(config, "hc_mult"),
    )


READERS: Final = {"DeepseekV4ForCausalLM": read_deepseek_v4}
"""The architectures of this file and their readers."""


def _kinds(config: Config, number: int) -> tuple[Kind, ...]:
    ratios = list_of(config, "compress_ratios", number)
    if ratios is None:
        raise BadField("config.json has no compress_ratios, which sizing needs.")
    by_token = config.get("num_hash_layers", 0)
    if type(by_token) is not int:
        raise BadField("config.json has num_hash_layers that is not a whole number.")
    kinds = tuple((max(1, ratios[layer]), layer < by_token) for layer in range(number))
    if any(ratio not in _RATIOS for ratio, _ in kinds):
        raise UnsupportedFeature("config.json has compress_ratios other than 0, 1, 4 and 128.")
    return kinds


def _rope(config: Config) -> Rope:
    """Read the rotary embedding of compressed vectors; newer checkpoints state two."""
    stated = mapping(config, "rope_scaling") or mapping(config, "rope_parameters")
    if isinstance(stated.get("compress"), Mapping):
        stated = mapping(stated, "compress")
    plain = {name: value for name, value in config.items() if not name.startswith("rope_")}
    rope = read_rope({**plain, "rope_parameters": stated}, count(config, "qk_rope_head_dim"))
    return replace(rope, cache=replace(rope.cache, element_bytes=4))


def _tables(config: Config, rope: Rope, kinds: tuple[Kind, ...]) -> Tensors:
    """Give a table for compressed vectors, and one without scaling for the other layers."""
    compressed = tuple(layer for layer, (ratio, _) in enumerate(kinds) if ratio > 1)
    others = tuple(layer for layer, (ratio, _) in enumerate(kinds) if ratio == 1)
    unscaled = replace(rope.cache, rows=count(config, "max_position_embeddings"))
    return tuple(
        replace(tensor, used_by=layers)
        for table, layers in ((rope.cache, compressed), (unscaled, others))
        for tensor in rope_tables(table)
        if layers
    )


def _ends(vocab_size: int, hidden_size: int) -> Tensors:
    stored = with_prefixes({"model.embed_tokens": "embed", "model.norm": "norm", "lm_head": "head"})
    ends = outer_tensors(vocab_size, hidden_size, tied=False)
    return tuple(renamed(tensor, lambda name: name, stored) for tensor in ends)


def _layer(config: Config, kind: Kind) -> LayerProfile:
    hidden_size, (ratio, by_token) = count(config, "hidden_size"), kind
    attention, moe = _attention(config, ratio), _moe(config)
    streams = _streams(config)
    tensors = (
        *_attention_tensors(config, attention, hidden_size),
        *_experts(config, moe, by_token),
        *(
            _number(f"layers.{{}}.hc_{part}_{name}", shape)
            for part in ("attn", "ffn")
            for name, shape in streams.items()
        ),
        whole("layers.{}.attn_norm.weight", (hidden_size,)),
        whole("layers.{}.ffn_norm.weight", (hidden_size,)),
    )
    named = tuple(renamed(tensor, _ENGINE_NAMES, lambda name: name) for tensor in tensors)
    return LayerProfile((attention,), moe, named)


def _streams(config: Config) -> dict[str, tuple[int, ...]]:
    """Give the shapes of the parameters that mix the residual streams around one block."""
    streams = count(config, "hc_mult")
    mixes = (2 + streams) * streams
    return {"fn": (mixes, streams * count(config, "hidden_size")), "base": (mixes,), "scale": (3,)}


def _head_streams(config: Config, prefix: str) -> Tensors:
    """Give the parameters that merge the residual streams before the last norm."""
    streams = count(config, "hc_mult")
    shapes = {"fn": (streams, streams * count(config, "hidden_size")), "base": (streams,), "scale": (1,)}
    return tuple(
        replace(
            _number(f"{prefix}.hc_head_{name}", shape),
            stored=(StoredTensor(f"hc_head_{name}", shape),),
        )
        for name, shape in shapes.items()
    )


def _number(name: str, shape: tuple[int, ...]) -> ParameterTensor:
    return whole(name, shape, element_bytes=4)


def _attention(config: Config, ratio: int) -> LatentAttentionProfile:
    head_dim, rotary = count(config, "head_dim"), count(config, "qk_rope_head_dim")
    indexed = ratio == 4
    return LatentAttentionProfile(
        num_heads=count(config, "num_attention_heads"),
        kv_lora_rank=head_dim - rotary,
        qk_nope_head_dim=head_dim - rotary,
        qk_rope_head_dim=rotary,
        v_head_dim=head_dim,
        q_lora_rank=count(config, "q_lora_rank"),
        index_num_heads=count(config, "index_n_heads") if indexed else None,
        index_head_dim=count(config, "index_head_dim") if indexed else None,
        index_topk=count(config, "index_topk"),
        tokens_per_state=0 if ratio == 1 else ratio,
        sliding_window=count(config, "sliding_window"),
        output_groups=count(config, "o_groups"),
    )


def _attention_tensors(config: Config, attention: LatentAttentionProfile, hidden_size: int) -> Tensors:
    prefix, ratio = "layers.{}.attn", attention.tokens_per_state
    heads, head_dim = attention.num_heads, attention.latent_dim
    rank, merged = attention.q_lora_rank or 0, attention.output_groups * count(config, "o_lora_rank")
    fused = {f"{prefix}.wq_a": rank, f"{prefix}.wkv": head_dim}
    inner = heads * head_dim // attention.output_groups
    tensors = [
        replace(sinks(f"{prefix}.attn_sink", heads), element_bytes=4),
        *replicated_parts(f"{prefix}.fused_wqa_wkv", fused, hidden_size),
        whole(f"{prefix}.q_norm.weight", (rank,)),
        *column_linear(f"{prefix}.wq_b", {f"{prefix}.wq_b": heads * head_dim}, rank),
        whole(f"{prefix}.kv_norm.weight", (head_dim,)),
        *column_linear(f"{prefix}.wo_a", {f"{prefix}.wo_a": merged}, inner),
        *row_linear(f"{prefix}.wo_b", hidden_size, merged),
    ]
    if ratio:
        tensors += _compressor(f"{prefix}.compressor", ratio, head_dim, hidden_size)
    if attention.index_num_heads and attention.index_head_dim:
        index_heads, index_dim = attention.index_num_heads, attention.index_head_dim
        tensors += replicated_linear(f"{prefix}.indexer.wq_b", index_heads * index_dim, rank)
        weigh = replicated_linear(f"{prefix}.indexer.weights_proj", index_heads, hidden_size)
        tensors += never_quantised(weigh)
        tensors += _compressor(f"{prefix}.indexer.compressor", ratio, index_dim, hidden_size)
    return tuple(tensors)


def _compressor(prefix: str, ratio: int, head_dim: int, hidden_size: int) -> Tensors:
    """Give what makes one vector of `ratio` tokens; groups of 4 overlap, so theirs is twice as wide."""
    width = (2 if ratio == 4 else 1) * head_dim
    parts = {f"{prefix}.wkv": width, f"{prefix}.wgate": width}
    return (
        _number(f"{prefix}.ape", (ratio, width)),
        *never_quantised(replicated_parts(f"{prefix}.fused_wkv_wgate", parts, hidden_size)),
        whole(f"{prefix}.norm.weight", (head_dim,)),
    )


def _moe(config: Config) -> MoeProfile:
    size = count(config, "moe_intermediate_size")
    shared = count(config, "n_shared_experts") if config.get("n_shared_experts") else 0
    return MoeProfile(
        num_experts=count(config, "n_routed_experts"),
        num_experts_per_tok=count(config, "num_experts_per_tok"),
        intermediate_size=size,
        shared_intermediate_size=shared * size,
    )


def _experts(config: Config, moe: MoeProfile, by_token: bool) -> Tensors:
    block, hidden_size = "layers.{}.ffn", count(config, "hidden_size")
    corrected = not by_token and word(config, "topk_method") == "noaux_tc"
    router = Router(
        correction="gate.e_score_correction_bias" if corrected else None, stored_correction="gate.bias"
    )
    tensors = [
        *router_tensors(block, router, moe.num_experts, hidden_size, stored=block),
        *experts(
            f"{block}.experts", moe, hidden_size, stored=f"{block}.experts.{{}}", parts=("w1", "w3", "w2")
        ),
    ]
    if by_token:
        tensors.append(
            _number(f"{block}.gate.tid2eid", (count(config, "vocab_size"), moe.num_experts_per_tok))
        )
    if moe.shared_intermediate_size:
        tensors += _shared(f"{block}.shared_experts", moe.shared_intermediate_size, hidden_size)
    return tuple(tensors)


def _shared(prefix: str, size: int, hidden_size: int) -> Tensors:
    parts = {f"{prefix}.w1": size, f"{prefix}.w3": size}
    divided = (
        *column_linear(f"{prefix}.gate_up_proj", parts, hidden_size),
        *row_linear(f"{prefix}.down_proj", hidden_size, size, stored=f"{prefix}.w2"),
    )
    return tuple(replace(tensor, whole_in_sequence_parallel=True) for tensor in divided)


def _draft(config: Config, index: int) -> LayerProfile:
    """Give a layer for multi-token prediction: without compression, with streams of its own to merge."""
    hidden_size = count(config, "hidden_size")
    layer = _layer(config, (1, False))
    inner = with_prefixes({f"{_PREFIX}.": f"{_PREFIX}.mtp_block."})
    stored = with_prefixes({"layers.{}.": f"mtp.{index}."})
    own = (
        *(
            whole(f"{_PREFIX}.{engine}.weight", (hidden_size,), stored=f"mtp.{index}.{kept}.weight")
            for engine, kept in (("enorm", "enorm"), ("hnorm", "hnorm"), ("shared_head.norm", "norm"))
        ),
        *replicated_linear(f"{_PREFIX}.e_proj", hidden_size, hidden_size, stored=f"mtp.{index}.e_proj"),
        *replicated_linear(f"{_PREFIX}.h_proj", hidden_size, hidden_size, stored=f"mtp.{index}.h_proj"),
        *_head_streams(config, _PREFIX),
    )
    return replace(layer, tensors=(*(renamed(t, inner, stored) for t in layer.tensors), *own))
