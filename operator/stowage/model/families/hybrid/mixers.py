"""Tensors of the mixers that keep a state: Mamba 1 and 2, gated delta nets, short convolutions.

Sources: vllm/model_executor/layers/mamba/{mamba_mixer,mamba_mixer2,short_conv}.py and
gdn/qwen_gdn_linear_attn.py (0.32.0). Each function names tensors as the checkpoint does (`prefix`); families
whose engine module is called otherwise rename them. What a state takes in the cache is not told here but in
`stowage.memory.kv.state_cache`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from stowage.model.blocks import Tensors, column_linear, row_linear, whole
from stowage.model.families.hybrid.parts import divided
from stowage.model.profile import StateProfile
from stowage.model.tensors import ParameterTensor, Shard, StateRows

FLOAT32_BYTES = 4
"""`A` is kept in 32 bits: its exponential is taken."""


@dataclass(frozen=True, slots=True)
class MixerBiases:
    """Which parts of a mixer have a bias, and whether a gated norm follows it."""

    projections: bool = False
    convolution: bool = True
    norm: bool = True


def mamba2(prefix: str, state: StateProfile, hidden_size: int, biases: MixerBiases) -> Tensors:
    """Give the tensors of a Mamba 2 mixer; a single group of B and C is replicated over ranks."""
    inner, heads = state.inner_size, state.num_heads
    groups = 2 * state.num_groups * state.state_size
    projection = column_linear(
        f"{prefix}.in_proj", {f"{prefix}.in_proj": 2 * inner + groups + heads}, hidden_size,
        bias=biases.projections,
    )  # fmt: skip
    convolution = (
        divided(f"{prefix}.conv1d.weight", (inner + groups, 1, state.conv_kernel)),
        *((divided(f"{prefix}.conv1d.bias", (inner + groups,)),) if biases.convolution else ()),
    )
    return (
        *_by_group(projection, 2 * inner + heads, state),
        *_by_group(convolution, inner, state),
        divided(f"{prefix}.A", (heads,), stored=f"{prefix}.A_log", element_bytes=FLOAT32_BYTES),
        divided(f"{prefix}.D", (heads,)),
        divided(f"{prefix}.dt_bias", (heads,)),
        *((divided(f"{prefix}.norm.weight", (inner,)),) if biases.norm else ()),
        *row_linear(f"{prefix}.out_proj", hidden_size, inner, bias=biases.projections),
    )


def _by_group(tensors: Tensors, divided_rows: int, state: StateProfile) -> Tensors:
    if state.num_groups > 1:
        return tensors
    rows = StateRows(divided_rows, state.num_groups, 2 * state.state_size)
    return tuple(replace(tensor, shard=Shard.STATE_GROUPS, state_rows=rows) for tensor in tensors)


def mamba1(
    prefix: str, state: StateProfile, hidden_size: int, biases: MixerBiases, time_step_rank: int
) -> Tensors:
    """Give the tensors of a Mamba 1 mixer, which is never quantised; `norm`: three norms inside have weights."""
    inner, size = state.inner_size, state.state_size
    projections = (
        *column_linear(
            f"{prefix}.in_proj", {f"{prefix}.in_proj": 2 * inner}, hidden_size, bias=biases.projections
        ),
        *row_linear(f"{prefix}.x_proj", time_step_rank + 2 * size, inner),
        *column_linear(f"{prefix}.dt_proj", {f"{prefix}.dt_proj": inner}, time_step_rank, bias=True),
        *row_linear(f"{prefix}.out_proj", hidden_size, inner, bias=biases.projections),
    )
    norms = {"dt_layernorm": time_step_rank, "b_layernorm": size, "c_layernorm": size}
    return (
        divided(f"{prefix}.conv1d.weight", (inner, 1, state.conv_kernel)),
        *((divided(f"{prefix}.conv1d.bias", (inner,)),) if biases.convolution else ()),
        *(replace(tensor, linear=None) for tensor in projections),
        divided(f"{prefix}.A", (inner, size), stored=f"{prefix}.A_log", element_bytes=FLOAT32_BYTES),
        divided(f"{prefix}.D", (inner,)),
        *(
            whole(f"{prefix}.{name}.weight", (width,))
            for name, width in norms.items()
            if biases.norm
        ),
    )  # fmt: skip


def gated_delta_net(
    prefix: str, state: StateProfile, hidden_size: int, parts: tuple[str, str, str, str] | None = None
) -> Tensors:
    """Give the tensors of a gated delta net.

    `parts` are the checkpoint's projections to (query, key, value), gate, beta and alpha; None: it keeps the
    first two and the last two as one tensor each, as the engine does.
    """
    keys, values = state.key_heads * state.key_dim, state.num_heads * state.head_dim
    wide, narrow = {"in_proj_qkvz": 2 * (keys + values)}, {"in_proj_ba": 2 * state.num_heads}
    if parts is not None:
        wide = {parts[0]: 2 * keys + values, parts[1]: values}
        narrow = dict.fromkeys(parts[2:], state.num_heads)
    return (
        divided(f"{prefix}.conv1d.weight", (2 * keys + values, 1, state.conv_kernel)),
        *column_linear(
            f"{prefix}.in_proj_qkvz", {f"{prefix}.{name}": rows for name, rows in wide.items()}, hidden_size
        ),
        *column_linear(
            f"{prefix}.in_proj_ba", {f"{prefix}.{name}": rows for name, rows in narrow.items()}, hidden_size
        ),
        divided(f"{prefix}.dt_bias", (state.num_heads,)),
        divided(f"{prefix}.A_log", (state.num_heads,), element_bytes=FLOAT32_BYTES),
        whole(f"{prefix}.norm.weight", (state.head_dim,)),
        *row_linear(f"{prefix}.out_proj", hidden_size, values),
    )


def short_convolution(prefix: str, state: StateProfile, *, bias: bool) -> Tensors:
    """Give the tensors of a short convolution: between two gates, all of the hidden size."""
    width = state.inner_size
    convolution: tuple[ParameterTensor, ...] = (
        divided(f"{prefix}.conv.weight", (width, 1, state.conv_kernel)),
        *((divided(f"{prefix}.conv.bias", (width,)),) if bias else ()),
    )
    return (
        *convolution,
        *column_linear(f"{prefix}.in_proj", {f"{prefix}.in_proj": 3 * width}, width, bias=bias),
        *row_linear(f"{prefix}.out_proj", width, width, bias=bias),
    )
