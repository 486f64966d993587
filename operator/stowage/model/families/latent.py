"""Families with multi-head latent attention (MLA): DeepSeek and what follows its model file.

DeepSeek V2, V3 and V3.2, Kimi K2, GLM-5, GLM-4.7-Flash and openPangu Ultra share one skeleton: latent
attention, some dense layers, then routed and shared experts. They differ in class defaults, in the router and
in norms. A configuration without the small projections of MLA has usual attention instead (DeepSeek V1), and a
model_type that the engine does not list for MLA caches whole keys and values. Sources: vLLM's
model_executor/models/{deepseek_v2,glm4_moe_lite,openpangu}.py, models/deepseek_v32 and
`is_deepseek_mla` (0.32.0); class defaults of transformers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import Tensors, experts, gated_mlp, whole
from stowage.model.config_fields import BadField, count, flag, refuse_features, word
from stowage.model.families.latent_parts import (
    Config,
    draft_layer,
    expanded_attention,
    indexer,
    latent_attention,
    read_latent_attention,
)
from stowage.model.families.latent_table import FAMILIES, LatentFamily
from stowage.model.families.moe_layers import (
    outer_tensors,
    read_head_dim,
    read_heads,
    repeat_layers,
    router_tensors,
    self_attention,
)
from stowage.model.profile import (
    AttentionProfile,
    LatentAttentionProfile,
    LayerProfile,
    MlpProfile,
    MoeProfile,
    RopeCache,
)
from stowage.model.rope import Rope, read_rope

_LATENT_TYPES: Final = frozenset(
    (
        "deepseek_v2",
        "deepseek_v3",
        "deepseek_v32",
        "glm_moe_dsa",
        "glm4_moe_lite",
        "kimi_k2",
        "pangu_ultra_moe",
    )
)
"""Values of model_type for which the engine caches latent vectors, as far as these families go."""


@dataclass(frozen=True, slots=True)
class LayerKind:
    """What tells layers of one model apart."""

    sparse: bool
    indexed: bool


def read_latent(config: Config, family: LatentFamily) -> Anatomy:
    """Read one model of these families; raises BadField for missing, wrong or not supported values."""
    refuse_features(config, "text_config", "vision_config", "param_sink_number")
    hidden_size, vocab_size = count(config, "hidden_size"), count(config, "vocab_size")
    number = count(config, "num_hidden_layers")
    make = partial(_layer, config, family)
    tied, rope = family.ties and flag(config, "tie_word_embeddings"), _rope(config, family)
    drafts = 0 if config.get("num_nextn_predict_layers") == 0 else _drafts(config)
    last = LayerKind(_is_sparse(config, family, number), _index_topk(config, family) is not None)
    return Anatomy(
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        layers=repeat_layers(number, partial(_kind, config, family), make),
        outer_tensors=outer_tensors(vocab_size, hidden_size, *_tables(config, family, rope), tied=tied),
        tie_word_embeddings=tied,
        rope=rope,
        draft_layers=(draft_layer(make(last), hidden_size),) * drafts if drafts else (),
    )


READERS: Final = {name: partial(read_latent, family=family) for name, family in FAMILIES.items()}
"""The architectures of this file and their readers."""


def _drafts(config: Config) -> int:
    return count(config, "num_nextn_predict_layers", 1) if "num_nextn_predict_layers" in config else 0


def _kind(config: Config, family: LatentFamily, layer: int) -> LayerKind:
    return LayerKind(_is_sparse(config, family, layer), _has_indexer(config, family, layer))


def _is_sparse(config: Config, family: LatentFamily, layer: int) -> bool:
    """Tell whether a layer has experts: all do after the first ones, or every moe_layer_freq-th."""
    if not _routed_experts(config, family):
        return False
    step = count(config, "moe_layer_freq", 1) if family.in_steps else 1
    return layer >= _dense_first(config, family) and layer % step == 0


def _dense_first(config: Config, family: LatentFamily) -> int:
    first = config.get("first_k_dense_replace", family.defaults.get("first_k_dense_replace"))
    if type(first) is not int or first < 0:
        raise BadField("config.json has first_k_dense_replace that is not a whole number of at least 0.")
    return first


def _routed_experts(config: Config, family: LatentFamily) -> int:
    if config.get("n_routed_experts", family.defaults.get("n_routed_experts")) is None:
        return 0
    return count(config, "n_routed_experts", family.defaults.get("n_routed_experts"))


def _index_topk(config: Config, family: LatentFamily) -> int | None:
    if config.get("index_topk") is None and "index_topk" not in family.defaults:
        return None
    return count(config, "index_topk", family.defaults.get("index_topk"))


def _has_indexer(config: Config, family: LatentFamily, layer: int) -> bool:
    """Tell whether a layer picks tokens itself; the others use what an earlier one picked."""
    if _index_topk(config, family) is None:
        return False
    pattern = config.get("index_topk_pattern")
    if pattern is not None:
        if not isinstance(pattern, (str, list)):
            raise BadField("config.json has index_topk_pattern, which must be a string or a list.")
        return layer >= len(pattern) or pattern[layer] != "S"
    offset, step = count(config, "index_skip_topk_offset", 2), count(config, "index_topk_freq", 1)
    return max(layer - offset + 1, 0) % step == 0


def _rope(config: Config, family: LatentFamily) -> Rope:
    if _has_usual_attention(config, family):
        return read_rope(config, read_head_dim(config, count(config, "num_attention_heads"), derived=True))
    stated = config
    if family.rope == "plain":
        stated = {name: value for name, value in config.items() if not name.startswith("rope_")}
    return read_rope(stated, count(config, "qk_rope_head_dim", family.defaults.get("qk_rope_head_dim")))


def _tables(config: Config, family: LatentFamily, rope: Rope) -> tuple[RopeCache, ...]:
    """Give the rotary tables: an indexer that does not interleave needs its own."""
    own = _index_topk(config, family) is not None and not flag(config, "indexer_rope_interleave")
    return (rope.cache, rope.cache) if own else (rope.cache,)


def _has_usual_attention(config: Config, family: LatentFamily) -> bool:
    sizes = (
        config.get(name, family.defaults.get(name, 0)) for name in ("qk_nope_head_dim", "qk_rope_head_dim")
    )
    return config.get("model_type") == "deepseek" or all(not size for size in sizes)


def _layer(config: Config, family: LatentFamily, kind: LayerKind) -> LayerProfile:
    hidden_size, prefix = count(config, "hidden_size"), "model.layers.{}"
    mixer, mixing = _attention(config, family, kind)
    norms = ["input_layernorm", "post_attention_layernorm"]
    if family.sandwich and flag(config, "sandwich_norm"):
        norms += ["pre_mlp_layernorm", "post_mlp_layernorm"]
    around = tuple(whole(f"{prefix}.{norm}.weight", (hidden_size,)) for norm in norms)
    if kind.sparse:
        moe = _moe(config, family)
        return LayerProfile((mixer,), moe, (*mixing, *around, *_block(config, family, moe, f"{prefix}.mlp")))
    mlp = MlpProfile(count(config, "intermediate_size"), bias=family.sandwich and flag(config, "mlp_bias"))
    return LayerProfile((mixer,), mlp, (*mixing, *around, *gated_mlp(f"{prefix}.mlp", mlp, hidden_size)))


def _attention(
    config: Config, family: LatentFamily, kind: LayerKind
) -> tuple[AttentionProfile | LatentAttentionProfile, Tensors]:
    """Give attention and its tensors: latent where the engine caches latent vectors, else the usual."""
    prefix, hidden_size = "model.layers.{}.self_attn", count(config, "hidden_size")
    if _has_usual_attention(config, family):
        heads, kv_heads = read_heads(config)
        usual = AttentionProfile(heads, kv_heads, read_head_dim(config, heads, derived=True))
        return usual, self_attention(prefix, usual, hidden_size)
    topk = _index_topk(config, family)
    latent = read_latent_attention(config, family.defaults, index_topk=topk)
    if word(config, "model_type") not in (*_LATENT_TYPES, None):
        heads, head_dim = latent.num_heads, latent.qk_nope_head_dim + latent.qk_rope_head_dim
        return AttentionProfile(heads, heads, head_dim), expanded_attention(prefix, latent, hidden_size)
    tensors = latent_attention(prefix, latent, hidden_size)
    if not kind.indexed:
        return latent, tensors
    latent = replace(
        latent,
        index_num_heads=count(config, "index_n_heads", family.defaults.get("index_n_heads")),
        index_head_dim=count(config, "index_head_dim", family.defaults.get("index_head_dim")),
    )
    return latent, (*tensors, *indexer(f"{prefix}.indexer", latent, hidden_size))


def _moe(config: Config, family: LatentFamily) -> MoeProfile:
    size = count(config, "moe_intermediate_size")
    shared = config.get("n_shared_experts", family.defaults.get("n_shared_experts"))
    number = count(config, "n_shared_experts", family.defaults.get("n_shared_experts")) if shared else 0
    return MoeProfile(
        num_experts=_routed_experts(config, family),
        num_experts_per_tok=count(config, "num_experts_per_tok", family.defaults.get("num_experts_per_tok")),
        intermediate_size=size,
        shared_intermediate_size=number * size,
    )


def _block(config: Config, family: LatentFamily, moe: MoeProfile, prefix: str) -> Tensors:
    hidden_size = count(config, "hidden_size")
    router = family.router if _is_corrected(config, family) else replace(family.router, correction=None)
    shared: Tensors = ()
    if moe.shared_intermediate_size:
        shared = gated_mlp(f"{prefix}.shared_experts", MlpProfile(moe.shared_intermediate_size), hidden_size)
    return (
        *router_tensors(prefix, router, moe.num_experts, hidden_size, stored=prefix),
        *experts(f"{prefix}.experts", moe, hidden_size, stored=f"{prefix}.experts.{{}}"),
        *(replace(tensor, whole_in_sequence_parallel=family.sequence_parallel) for tensor in shared),
    )


def _is_corrected(config: Config, family: LatentFamily) -> bool:
    if family.corrected == "topk_method":
        return word(config, "topk_method") == "noaux_tc"
    return not family.corrected or flag(config, family.corrected)
