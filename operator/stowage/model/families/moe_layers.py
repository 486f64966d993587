"""Parts that mixture-of-experts decoders are put together from: attention, routers, experts, layer lists.

Families differ in names, in which projections carry biases and in how the checkpoint stores experts; the
parts here say so in their arguments. They hold no rule of a single architecture. Sources: vLLM's
model files and `fused_moe/{layer,routed_experts,unquantized_fused_moe_method}.py` (0.32.0).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from stowage.model.blocks import (
    Tensors,
    attention_output,
    cache_scales,
    elsewhere,
    embedding_and_head,
    expert_map,
    head_norms,
    qkv_linear,
    rope_tables,
    whole,
)
from stowage.model.config_fields import BadField, count
from stowage.model.profile import AttentionProfile, LayerProfile, MoeProfile, RopeCache
from stowage.model.tensors import Linear, ParameterTensor, Place, QkvHeads, Shard, StoredTensor

Config = Mapping[str, Any]
Kind = TypeVar("Kind", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Router:
    """The layer that chooses experts: its names in engine and checkpoint, and what it consists of.

    `correction` names the per-expert score correction inside the block, None where there is none; it is
    kept in 32 bits. `fp32`: so is the weight. `stored_lead` are dimensions that the checkpoint puts before
    the correction's only one.
    """

    name: str = "gate"
    stored_name: str | None = None
    fp32: bool = False
    bias: bool = False
    correction: str | None = None
    stored_correction: str | None = None
    stored_lead: tuple[int, ...] = ()


def repeat_layers(
    number: int, kind_of: Callable[[int], Kind], make: Callable[[Kind], LayerProfile]
) -> tuple[LayerProfile, ...]:
    """Give `number` layers; layers of one kind are one and the same object."""
    made: dict[Kind, LayerProfile] = {}
    for index in range(number):
        kind = kind_of(index)
        if kind not in made:
            made[kind] = make(kind)
    return tuple(made[kind_of(index)] for index in range(number))


def read_heads(config: Config, default_kv_heads: int | None = None) -> tuple[int, int]:
    """Read the numbers of query and key/value heads; raises BadField where one is no multiple of the other."""
    heads = count(config, "num_attention_heads")
    kv_heads = count(config, "num_key_value_heads", default_kv_heads or heads)
    if heads % kv_heads:
        raise BadField(
            f"config.json says num_key_value_heads: {kv_heads}; it must divide {heads} attention heads."
        )
    return heads, kv_heads


def read_head_dim(config: Config, heads: int, *, derived: bool = False) -> int:
    """Read the size of a head, or derive it from the hidden size where it is absent, or always."""
    if config.get("head_dim") is not None and not derived:
        return count(config, "head_dim")
    hidden = count(config, "hidden_size")
    if hidden % heads:
        raise BadField(
            f"config.json says hidden_size: {hidden}; it must be a multiple of {heads} attention heads."
        )
    return hidden // heads


def list_of(config: Config, name: str, number: int) -> list[Any] | None:
    """Read a list with one entry for each layer; None where the field is absent."""
    value = config.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or len(value) < number:
        raise BadField(
            f"config.json has {name}, which must be a list with an entry for each of {number} layers."
        )
    return value


def layer_windows(config: Config, number: int) -> list[int | None]:
    """Give the window of each layer as layer_types says: that of sliding_windows, else sliding_window."""
    kinds = list_of(config, "layer_types", number)
    if kinds is None or "sliding_attention" not in kinds[:number]:
        return [None] * number
    sizes = list_of(config, "sliding_windows", number) or [count(config, "sliding_window")] * number
    return [
        count({"sliding_windows": sizes[layer]}, "sliding_windows")
        if kinds[layer] == "sliding_attention"
        else None
        for layer in range(number)
    ]


def indices(config: Config, name: str) -> frozenset[int]:
    """Read a list of layer numbers; absent means none."""
    value = config.get(name)
    if value is None:
        return frozenset()
    if not isinstance(value, list) or not all(type(entry) is int for entry in value):
        raise BadField(f"config.json has {name}, which must be a list of layer numbers.")
    return frozenset(value)


def self_attention(prefix: str, attention: AttentionProfile, hidden_size: int) -> Tensors:
    """Give projections, norms over single heads and cache scales, under the usual names."""
    return (
        *qkv_linear(prefix, attention, hidden_size),
        *attention_output(prefix, attention, hidden_size),
        *head_norms(prefix, attention),
        *cache_scales(f"{prefix}.attn"),
    )


def wide_norms(prefix: str, attention: AttentionProfile, *, divided: bool) -> Tensors:
    """Give norms over all query heads together and all key heads together, whole or split like the heads."""
    tensors = []
    for name, heads in (("q_norm", attention.num_heads), ("k_norm", attention.num_kv_heads)):
        full, size = f"{prefix}.{name}.weight", heads * attention.head_dim
        kept = (StoredTensor(full, (size,)),)
        if not divided:
            tensors.append(ParameterTensor(full, (size,), Shard.REPLICATED, Place.LAYER, kept))
        elif name == "q_norm":
            tensors.append(ParameterTensor(full, (size,), Shard.COLUMNS, Place.LAYER, kept))
        else:
            rule = QkvHeads(0, heads, attention.head_dim, 0)
            tensors.append(ParameterTensor(full, (size,), Shard.HEADS, Place.LAYER, kept, heads=rule))
    return tuple(tensors)


def sinks(name: str, num_heads: int, *, stored: str | None = None) -> ParameterTensor:
    """Give the learned attention sinks: one number a query head."""
    kept = (StoredTensor(stored or name, (num_heads,)),)
    return ParameterTensor(name, (num_heads,), Shard.COLUMNS, Place.LAYER, kept)


def router_tensors(block: str, rule: Router, num_experts: int, hidden_size: int, *, stored: str) -> Tensors:
    """Give the router's weight, its bias and its score correction, as far as the rule has them."""
    kept = f"{stored}.{rule.stored_name or rule.name}"
    bytes_each = 4 if rule.fp32 else None
    weight = ParameterTensor(
        f"{block}.{rule.name}.weight",
        (num_experts, hidden_size),
        Shard.REPLICATED,
        Place.LAYER,
        stored=(StoredTensor(f"{kept}.weight", (num_experts, hidden_size)),),
        element_bytes=bytes_each,
        linear=Linear(f"{block}.{rule.name}", (kept,), (num_experts,), "router"),
    )
    tensors = [weight]
    if rule.bias:
        tensors.append(whole(f"{block}.{rule.name}.bias", (num_experts,), stored=f"{kept}.bias"))
    if rule.correction is not None:
        name = f"{stored}.{rule.stored_correction or rule.correction}"
        kept_as = StoredTensor(name, (*rule.stored_lead, num_experts))
        correction = whole(f"{block}.{rule.correction}", (num_experts,), element_bytes=4)
        tensors.append(replace(correction, stored=(kept_as,)))
    return tuple(tensors)


def shared_gate(prefix: str, hidden_size: int) -> Tensors:
    """Give the gate that weighs a shared expert: one number a token, never quantised."""
    return (whole(f"{prefix}.weight", (1, hidden_size)),)


def stacked_experts(
    prefix: str, moe: MoeProfile, hidden_size: int, *, gate_up: tuple[StoredTensor, ...], down: StoredTensor
) -> Tensors:
    """Give routed experts whose checkpoint holds all experts of a layer in one tensor each."""
    inner, number = moe.intermediate_size, moe.num_experts
    up_names = tuple(kept.name.removesuffix(".weight") for kept in gate_up)
    return (
        ParameterTensor(
            f"{prefix}.routed_experts.w13_weight",
            (number, 2 * inner, hidden_size),
            Shard.EXPERT_COLUMNS,
            Place.LAYER,
            stored=gate_up,
            linear=Linear(prefix, up_names, (inner, inner), "experts"),
        ),
        ParameterTensor(
            f"{prefix}.routed_experts.w2_weight",
            (number, hidden_size, inner),
            Shard.EXPERT_ROWS,
            Place.LAYER,
            stored=(down,),
            linear=Linear(prefix, (down.name.removesuffix(".weight"),), (hidden_size,), "experts"),
        ),
        expert_map(prefix, number),
    )


def outer_tensors(
    vocab_size: int,
    hidden_size: int,
    *ropes: RopeCache,
    tied: bool,
    everywhere: bool = False,
    embedding: str = "model.embed_tokens",
) -> Tensors:
    """Give embedding, last norm, head and rotary tables; `everywhere`: every pipeline stage holds them."""
    tensors = [*embedding_and_head(vocab_size, hidden_size, tied=tied, embedding=embedding)]
    tensors.append(whole("model.norm.weight", (hidden_size,), place=Place.LAST))
    placed = elsewhere(tuple(tensors), Place.EVERY) if everywhere else tuple(tensors)
    return (*placed, *rope_tables(*ropes))


def engine_names(tensors: Tensors, stored: str, engine: str) -> Tensors:
    """Give the same tensors under the engine's module name, where the checkpoint has another for it."""
    renamed = []
    for tensor in tensors:
        linear = tensor.linear
        if linear is not None:
            linear = replace(linear, module=linear.module.replace(stored, engine))
        renamed.append(replace(tensor, name=tensor.name.replace(stored, engine), linear=linear))
    return tuple(renamed)
