"""Nemotron-H: layers that are one thing each, a Mamba 2 mixer, attention, a feed-forward block or experts.

The pattern is a string (`M`, `*`, `-`, `E`) or a list of words. There is no positional embedding; experts may
work on a smaller latent vector between two projections. Embedding, norm and head are built on every stage.
Sources: vllm/model_executor/models/{nemotron_h,nemotron_h_mtp}.py (0.32.0), NemotronHConfig of transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import (
    Tensors,
    column_linear,
    experts,
    replicated_linear,
    whole,
)
from stowage.model.config_fields import BadField, UnsupportedFeature, count, flag, word
from stowage.model.families.hybrid.mixers import MixerBiases, mamba2
from stowage.model.families.hybrid.parts import (
    chunk_size,
    ends_on_every_stage,
    grouped_query,
    plain_mlp,
    shared_expert,
    state_dtype,
    with_defaults,
    words,
)
from stowage.model.families.moe_layers import Router, engine_names, router_tensors, self_attention
from stowage.model.profile import LayerProfile, MlpProfile, MoeProfile, StateProfile
from stowage.model.rope import no_rope

DEFAULTS: Final[Mapping[str, Any]] = {
    "vocab_size": 131072,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 4096,
    "intermediate_size": 21504,
    "mlp_bias": False,
    "ssm_state_size": 128,
    "mamba_num_heads": 128,
    "mamba_head_dim": 64,
    "n_groups": 8,
    "conv_kernel": 4,
    "use_conv_bias": True,
    "use_bias": False,
    "mamba_ssm_cache_dtype": "float32",
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "moe_intermediate_size": 7688,
    "moe_shared_expert_intermediate_size": 7688,
    "num_experts_per_tok": 2,
    "num_nextn_predict_layers": 0,
}
"""Class defaults of transformers' NemotronHConfig."""

_KINDS: Final[Mapping[str, str]] = {
    "M": "M", "mamba": "M", "linear_attention": "M",
    "*": "*", "attention": "*", "full_attention": "*",
    "-": "-", "mlp": "-",
    "E": "E", "moe": "E",
}  # fmt: skip


def read_nemotron_h(config: Mapping[str, Any]) -> Anatomy:
    """Read one model; raises BadField for missing, wrong or not supported values."""
    if config.get("block_configs"):
        raise UnsupportedFeature("config.json gives each layer its own sizes (block_configs), not supported.")
    fields = with_defaults(config, DEFAULTS)
    hidden_size, vocab_size = count(fields, "hidden_size"), count(fields, "vocab_size")
    kinds = _pattern(fields, "layers_block_type", "hybrid_override_pattern")
    if kinds is None:
        raise BadField("config.json has neither layers_block_type nor hybrid_override_pattern.")
    one_of_each = {kind: _layer(fields, kind, "backbone.layers.{}") for kind in dict.fromkeys(kinds)}
    ends = ends_on_every_stage(
        vocab_size,
        hidden_size,
        tied=False,
        embedding="backbone.embeddings",
        norm="backbone.norm_f.weight",
    )
    return Anatomy(
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        layers=tuple(one_of_each[kind] for kind in kinds),
        outer_tensors=_engine_names(ends),
        tie_word_embeddings=False,
        rope=no_rope(fields),
        draft_layers=_draft_layers(fields, hidden_size),
    )


READERS: Final = {"NemotronHForCausalLM": read_nemotron_h}
"""The architectures of this file and their readers."""


def _pattern(fields: Mapping[str, Any], list_name: str, string_name: str) -> tuple[str, ...] | None:
    listed = words(fields, list_name, _KINDS)
    if listed is not None:
        return listed
    pattern = word(fields, string_name)
    if pattern is None:
        return None
    if not pattern or set(pattern) - set("M*-E"):
        raise BadField(f"config.json says {string_name}: {pattern!r}; it must consist of M, *, - and E.")
    return tuple(pattern)


def _layer(fields: Mapping[str, Any], kind: str, prefix: str) -> LayerProfile:
    hidden_size = count(fields, "hidden_size")
    build = {"M": _mamba, "*": _attention, "-": _feed_forward, "E": _experts}[kind]
    layer = build(fields, hidden_size, f"{prefix}.mixer")
    tensors = (*layer.tensors, whole(f"{prefix}.norm.weight", (hidden_size,)))
    return LayerProfile(layer.mixers, layer.feed_forward, _engine_names(tensors))


def _engine_names(tensors: Tensors) -> Tensors:
    """Rename as the engine's loader does (hf_to_vllm_mapper)."""
    return engine_names(
        engine_names(tensors, "backbone.embeddings", "model.embed_tokens"), "backbone", "model"
    )


def _mamba(fields: Mapping[str, Any], hidden_size: int, prefix: str) -> LayerProfile:
    heads, head_dim = count(fields, "mamba_num_heads"), count(fields, "mamba_head_dim")
    state = StateProfile(
        "mamba2",
        conv_kernel=count(fields, "conv_kernel"),
        inner_size=heads * head_dim,
        state_size=count(fields, "ssm_state_size"),
        num_heads=heads,
        head_dim=head_dim,
        num_groups=count(fields, "n_groups"),
        state_dtype=state_dtype(fields, "mamba_ssm_cache_dtype"),
        chunk_size=chunk_size(fields),
    )
    biases = MixerBiases(flag(fields, "use_bias"), flag(fields, "use_conv_bias"))
    return LayerProfile((state,), None, mamba2(prefix, state, hidden_size, biases))


def _attention(fields: Mapping[str, Any], hidden_size: int, prefix: str) -> LayerProfile:
    window = fields.get("sliding_window")
    attention = grouped_query(
        fields,
        count(fields, "head_dim"),
        sliding_window=None if window is None else count(fields, "sliding_window"),
    )
    return LayerProfile((attention,), None, self_attention(prefix, attention, hidden_size))


def _feed_forward(fields: Mapping[str, Any], hidden_size: int, prefix: str) -> LayerProfile:
    stated = fields.get("intermediate_size")
    if isinstance(stated, list):
        if len(set(stated)) != 1:
            raise UnsupportedFeature(
                "config.json has feed-forward blocks of different sizes, which is not supported."
            )
        fields = {**fields, "intermediate_size": stated[0]}
    mlp = MlpProfile(count(fields, "intermediate_size"), bias=flag(fields, "mlp_bias"), gated=False)
    return LayerProfile((), mlp, plain_mlp(prefix, mlp, hidden_size))


def _experts(fields: Mapping[str, Any], hidden_size: int, prefix: str) -> LayerProfile:
    latent, bias = _or_none(fields, "moe_latent_size") or 0, flag(fields, "mlp_bias")
    shared = _or_none(fields, "n_shared_experts") or 0
    moe = MoeProfile(
        num_experts=count(fields, "n_routed_experts"),
        num_experts_per_tok=count(fields, "num_experts_per_tok"),
        intermediate_size=count(fields, "moe_intermediate_size"),
        shared_intermediate_size=shared * count(fields, "moe_shared_expert_intermediate_size"),
        gated=False,
        latent_size=latent,
    )
    # In 32 bits wherever there is no kernel that computes in them from 16: all but Hopper and B200.
    rule = Router(fp32=True, correction="gate.e_score_correction_bias")
    tensors: Tensors = (
        *router_tensors(prefix, rule, moe.num_experts, hidden_size, stored=prefix),
        *experts(f"{prefix}.experts", moe, latent or hidden_size, stored=f"{prefix}.experts.{{}}"),
    )
    if shared:
        block = MlpProfile(moe.shared_intermediate_size, gated=False)
        tensors += shared_expert(plain_mlp(f"{prefix}.shared_experts", block, hidden_size))
    if latent:
        tensors += replicated_linear(f"{prefix}.fc1_latent_proj", latent, hidden_size, bias=bias)
        tensors += replicated_linear(f"{prefix}.fc2_latent_proj", hidden_size, latent, bias=bias)
    return LayerProfile((), moe, tensors)


def _or_none(fields: Mapping[str, Any], name: str) -> int | None:
    return None if fields.get(name) in (None, 0) else count(fields, name)


def _draft_layers(fields: Mapping[str, Any], hidden_size: int) -> tuple[LayerProfile, ...]:
    """Read the layers of multi-token prediction: the first takes in two vectors, the last ends with a norm."""
    if not _or_none(fields, "num_nextn_predict_layers"):
        return ()
    kinds = _pattern(fields, "mtp_layers_block_type", "mtp_hybrid_override_pattern") or ("*", "E")
    prefix = "mtp.layers.{}"
    layers = [_layer(fields, kind, prefix) for kind in kinds]
    start = (
        *(whole(f"{prefix}.{name}.weight", (hidden_size,)) for name in ("enorm", "hnorm")),
        *column_linear(f"{prefix}.eh_proj", {f"{prefix}.eh_proj": hidden_size}, 2 * hidden_size),
    )
    end = (whole(f"{prefix}.final_layernorm.weight", (hidden_size,)),)
    layers[0] = _longer(layers[0], start)
    layers[-1] = _longer(layers[-1], end)
    return tuple(layers)


def _longer(layer: LayerProfile, tensors: Tensors) -> LayerProfile:
    return LayerProfile(layer.mixers, layer.feed_forward, (*layer.tensors, *tensors))
