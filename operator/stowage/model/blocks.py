"""Tensors of the building blocks that most families share, under the engine's names and the checkpoint's.

The engine fuses query, key and value into one matrix, and gate and up into another; most checkpoints hold
them apart. `prefix` is the module's name and may hold `{}` for the layer's number; `stored` is its name in
the checkpoint where that differs. Rules of vLLM's layers (linear.py, vocab_parallel_embedding.py,
fused_moe/layer.py, attention.py; 0.32.0).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from stowage.model.profile import AttentionProfile, MlpProfile, MoeProfile, RopeCache
from stowage.model.tensors import Linear, ParameterTensor, Place, QkvHeads, Shard, StoredTensor

Tensors = tuple[ParameterTensor, ...]


def whole(
    name: str,
    shape: tuple[int, ...],
    *,
    stored: str | None = None,
    place: Place = Place.LAYER,
    element_bytes: int | None = None,
) -> ParameterTensor:
    """Give a parameter that every rank holds whole: norms, biases of row-parallel layers, routers."""
    kept = StoredTensor(stored or name, shape)
    return ParameterTensor(name, shape, Shard.REPLICATED, place, stored=(kept,), element_bytes=element_bytes)


def column_linear(prefix: str, parts: Mapping[str, int], in_size: int, *, bias: bool = False) -> Tensors:
    """Give a linear layer whose outputs are divided; `parts` are the checkpoint's modules and their rows."""
    out_size = sum(parts.values())
    linear = Linear(prefix, tuple(parts), tuple(parts.values()))
    weight = ParameterTensor(
        f"{prefix}.weight",
        (out_size, in_size),
        Shard.COLUMNS,
        Place.LAYER,
        stored=tuple(StoredTensor(f"{part}.weight", (rows, in_size)) for part, rows in parts.items()),
        linear=linear,
    )
    if not bias:
        return (weight,)
    kept = tuple(StoredTensor(f"{part}.bias", (rows,)) for part, rows in parts.items())
    return (weight, ParameterTensor(f"{prefix}.bias", (out_size,), Shard.COLUMNS, Place.LAYER, stored=kept))


def row_linear(
    prefix: str, out_size: int, in_size: int, *, stored: str | None = None, bias: bool = False
) -> Tensors:
    """Give a linear layer whose inputs are divided; its bias is kept whole."""
    return _plain_linear(Linear(prefix, (stored or prefix,), (out_size,)), in_size, Shard.ROWS, bias)


def replicated_linear(
    prefix: str, out_size: int, in_size: int, *, stored: str | None = None, bias: bool = False
) -> Tensors:
    """Give a linear layer that every rank holds whole."""
    return _plain_linear(Linear(prefix, (stored or prefix,), (out_size,)), in_size, Shard.REPLICATED, bias)


def router(prefix: str, num_experts: int, in_size: int, *, stored: str | None = None) -> Tensors:
    """Give the linear layer that chooses experts: whole on every rank, and never quantised."""
    linear = Linear(prefix, (stored or prefix,), (num_experts,), "router")
    return _plain_linear(linear, in_size, Shard.REPLICATED, bias=False)


def _plain_linear(linear: Linear, in_size: int, shard: Shard, bias: bool) -> Tensors:
    (stored,), (out_size,) = linear.parts, linear.out_sizes
    shape = (out_size, in_size)
    kept = (StoredTensor(f"{stored}.weight", shape),)
    weight = ParameterTensor(f"{linear.module}.weight", shape, shard, Place.LAYER, stored=kept, linear=linear)
    if not bias:
        return (weight,)
    return (weight, whole(f"{linear.module}.bias", (out_size,), stored=f"{stored}.bias"))


def qkv_linear(
    prefix: str,
    attention: AttentionProfile,
    hidden_size: int,
    *,
    name: str = "qkv_proj",
    parts: tuple[str, ...] = ("q_proj", "k_proj", "v_proj"),
    query_factor: int = 1,
) -> Tensors:
    """Give the fused query/key/value projection.

    One part means that the checkpoint is fused as well, two that it fuses keys and values.
    """
    heads = QkvHeads(
        attention.num_heads,
        attention.num_kv_heads,
        attention.head_dim,
        attention.value_head_dim,
        query_factor,
    )
    rows = (
        attention.num_heads * attention.head_dim * query_factor,
        attention.num_kv_heads * attention.head_dim,
        attention.num_kv_heads * attention.value_head_dim,
    )
    stored_rows = {1: (sum(rows),), 2: (rows[0], sum(rows[1:])), 3: rows}[len(parts)]
    modules = tuple(f"{prefix}.{part}" for part in parts)
    linear = Linear(f"{prefix}.{name}", modules, rows)
    tensors = []
    for kind, tail in (("weight", (hidden_size,)), ("bias", ())):
        if kind == "bias" and not attention.qkv_bias:
            continue
        stored = tuple(
            StoredTensor(f"{m}.{kind}", (r, *tail)) for m, r in zip(modules, stored_rows, strict=True)
        )
        tensors.append(
            ParameterTensor(
                f"{prefix}.{name}.{kind}",
                (sum(rows), *tail),
                Shard.HEADS,
                Place.LAYER,
                stored=stored,
                heads=heads,
                linear=linear if kind == "weight" else None,
            )
        )
    return tuple(tensors)


def attention_output(
    prefix: str, attention: AttentionProfile, hidden_size: int, *, name: str = "o_proj"
) -> Tensors:
    """Give the output projection of an attention block."""
    in_size = attention.num_heads * attention.value_head_dim
    return row_linear(f"{prefix}.{name}", hidden_size, in_size, bias=attention.output_bias)


def head_norms(prefix: str, attention: AttentionProfile) -> Tensors:
    """Give the norms over single query and key heads, where there are any."""
    if not attention.qk_norm:
        return ()
    return tuple(whole(f"{prefix}.{name}.weight", (attention.head_dim,)) for name in ("q_norm", "k_norm"))


def cache_scales(prefix: str) -> Tensors:
    """Give the four fp32 scalars (key, value, query, probability scale) that every attention layer keeps."""
    return tuple(
        ParameterTensor(f"{prefix}._{name}_scale", (), Shard.REPLICATED, Place.LAYER, element_bytes=4)
        for name in ("k", "v", "q", "prob")
    )


def gated_mlp(
    prefix: str,
    mlp: MlpProfile,
    hidden_size: int,
    *,
    parts: tuple[str, ...] = ("gate_proj", "up_proj"),
    down: str = "down_proj",
) -> Tensors:
    """Give gate, up and down projection; one part means that the checkpoint fuses gate and up as well."""
    inner = mlp.intermediate_size
    rows = {f"{prefix}.{part}": 2 * inner // len(parts) for part in parts}
    weight, *bias = column_linear(f"{prefix}.gate_up_proj", rows, hidden_size, bias=mlp.bias)
    # The engine keeps a scale for each of the two, also where the checkpoint fuses them.
    up = replace(weight, linear=Linear(f"{prefix}.gate_up_proj", tuple(rows), (inner, inner)))
    return (up, *bias, *row_linear(f"{prefix}.{down}", hidden_size, inner, bias=mlp.bias))


def experts(
    prefix: str,
    moe: MoeProfile,
    hidden_size: int,
    *,
    stored: str,
    parts: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj"),
) -> Tensors:
    """Give the routed experts: two tensors in the engine, three for each expert in the checkpoint.

    `stored` holds a second `{}` for the expert, as in `model.layers.{}.mlp.experts.{}`. The map of experts
    comes with them: it exists where whole experts are spread over ranks.
    """
    inner, number = moe.intermediate_size, moe.num_experts
    gate_up = parts[:2] if moe.gated else parts[1:2]
    return (
        _expert_weight(
            prefix, "w13_weight", (number, len(gate_up) * inner, hidden_size),
            {f"{stored}.{part}": (inner, hidden_size) for part in gate_up},
        ),
        _expert_weight(
            prefix, "w2_weight", (number, hidden_size, inner), {f"{stored}.{parts[2]}": (hidden_size, inner)}
        ),
        expert_map(prefix, number),
    )  # fmt: skip


def expert_map(prefix: str, num_experts: int) -> ParameterTensor:
    """Give the table that tells a rank which experts are its own, there only under expert parallelism."""
    name = f"{prefix}.routed_experts._expert_map"
    return ParameterTensor(name, (num_experts,), Shard.EXPERT_MAP, Place.LAYER, element_bytes=4)


def _expert_weight(
    prefix: str, name: str, shape: tuple[int, int, int], parts: Mapping[str, tuple[int, int]]
) -> ParameterTensor:
    kept = tuple(
        StoredTensor(f"{part.replace('{}', '{0}', 1).replace('{}', str(expert), 1)}.weight", size)
        for expert in range(shape[0])
        for part, size in parts.items()
    )
    linear = Linear(prefix, tuple(parts), tuple(size[0] for size in parts.values()), "experts")
    shard = Shard.EXPERT_ROWS if name == "w2_weight" else Shard.EXPERT_COLUMNS
    full_name = f"{prefix}.routed_experts.{name}"
    return ParameterTensor(full_name, shape, shard, Place.LAYER, stored=kept, linear=linear)


def embedding_and_head(
    vocab_size: int,
    hidden_size: int,
    *,
    tied: bool,
    embedding: str = "model.embed_tokens",
    head: str = "lm_head",
) -> Tensors:
    """Give the token embedding and the output head; tied weights lie on both ends of a pipeline."""
    shape = (vocab_size, hidden_size)
    first = ParameterTensor(
        f"{embedding}.weight",
        shape,
        Shard.VOCABULARY,
        Place.BOTH_ENDS if tied else Place.FIRST,
        stored=(StoredTensor(f"{embedding}.weight", shape),),
    )
    if tied:
        return (first,)
    last = ParameterTensor(
        f"{head}.weight",
        shape,
        Shard.VOCABULARY,
        Place.LAST,
        stored=(StoredTensor(f"{head}.weight", shape),),
        linear=Linear(head, (head,), (vocab_size,), "head"),
    )
    return (first, last)


def rope_tables(*tables: RopeCache) -> Tensors:
    """Give the tables of the rotary embedding, which every stage holds."""
    return tuple(
        ParameterTensor(
            "rotary_emb.cos_sin_cache",
            (table.rows, table.rotary_dim),
            Shard.REPLICATED,
            Place.EVERY,
            element_bytes=table.element_bytes,
            multimodal_rope=table.multimodal,
        )
        for table in tables
    )


def elsewhere(tensors: Tensors, place: Place) -> Tensors:
    """Give the same tensors on other pipeline stages: towers and what stands outside the layers."""
    return tuple(replace(tensor, place=place) for tensor in tensors)
