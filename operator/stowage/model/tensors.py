"""The vocabulary for tensors: what one is made of, how ranks split it, which pipeline stages hold it.

Builders (one per family of architectures) write tensor lists in these terms; what a rank then holds is
worked out in `stowage.memory`. New ways to split are added as new rules here, never as special cases
elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Shard(Enum):
    """How ranks split a tensor: tensor-parallel ranks, or expert-parallel ones where experts are whole."""

    REPLICATED = "every rank holds it whole"
    COLUMNS = "dimension 0 is divided"
    ROWS = "dimension 1 is divided"
    HEADS = "query heads are divided; key and value heads too, or replicated where there are fewer than ranks"
    STATE_GROUPS = "rows of heads are divided; those of their groups too, or replicated where there is one"
    VOCABULARY = "dimension 0 is padded to a multiple of 64, then divided"
    EXPERT_COLUMNS = "experts × out × in: out is divided, or experts are under expert parallelism"
    EXPERT_ROWS = "experts × out × in: in is divided, or experts are under expert parallelism"
    EXPERTS = "dimension 0 counts experts: whole, or divided under expert parallelism"
    EXPERT_MAP = "every rank holds it whole, and only where experts are spread over ranks"


class Place(Enum):
    """Which pipeline stages hold a tensor."""

    LAYER = "the stage that has the layer"
    FIRST = "the first stage"
    LAST = "the last stage"
    BOTH_ENDS = "the first and the last stage"
    EVERY = "every stage"


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor under its name in the safetensors file; `{}` in the name stands for the layer.

    `dtype` is the element type as safetensors spells it (`F8_E4M3`, `I32`, `U8` …), None: the checkpoint's
    own floating point type.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str | None = None


@dataclass(frozen=True, slots=True)
class QkvHeads:
    """What a fused query/key/value projection is made of, for the rule HEADS.

    `query_factor` is 2 where each query head comes with a gate of its size. `index_dim`: an indexer's queries come
    with the key heads, one of that size each, and one key of that size that every rank has.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    value_dim: int
    query_factor: int = 1
    index_dim: int = 0


@dataclass(frozen=True, slots=True)
class StateRows:
    """What a fused projection of a state space layer is made of, for the rule STATE_GROUPS.

    `divided_rows` belong to heads; each of the `num_groups` groups (B and C of Mamba 2) has `group_rows`.
    """

    divided_rows: int
    num_groups: int
    group_rows: int


@dataclass(frozen=True, slots=True)
class Scheme:
    """A quantised layout of weights, in the terms of its checkpoint.

    `method` is the engine's name (`fp8`, `awq`, `gptq`, `compressed-tensors`, `modelopt`, `mxfp4`,
    `bitsandbytes` …), `weight` the number format ("fp8", "int8", "int4", "nvfp4", "mxfp4", "mxfp8", "nf4"),
    `strategy` what shares a scale ("tensor", "channel", "group", "block"). `group_size` counts input
    elements that share a scale, `block` rows × columns. `activation` is the format of the other operand
    ("fp8", "int8", "nvfp4" …), None where activations stay 16-bit; `static_activation`: its scale is stored.
    `double_quantized`: the scales are quantised themselves. `scale_bytes` are those of one scale of a block.
    """

    method: str
    weight: str
    strategy: str
    group_size: int | None = None
    block: tuple[int, int] | None = None
    zero_point: bool = False
    act_order: bool = False
    activation: str | None = None
    static_activation: bool = False
    double_quantized: bool = False
    scale_bytes: int = 4


@dataclass(frozen=True, slots=True)
class Linear:
    """The part of a tensor's description that quantisation looks at: it is the weight of a linear layer.

    `module` is the layer's name in the engine and `parts` the checkpoint's modules fused in it (`{}` for the
    layer's number), with `out_sizes` rows each, undivided. `role` is "linear", "experts" (dimension 0 counts
    experts; `parts` then hold a second `{}` for the expert where the checkpoint keeps experts apart),
    "router", "head" or "copy" (see `after_load`). `scheme` is what the checkpoint stores it in, None for plain
    floating point.
    """

    module: str
    parts: tuple[str, ...]
    out_sizes: tuple[int, ...]
    role: str = "linear"
    scheme: Scheme | None = None
    gated: bool = True


@dataclass(frozen=True, slots=True)
class Tower:
    """What a tensor of a vision or audio tower follows besides its own rule.

    The tower is loaded while the engine accepts one of `modalities` ("image", "video", "audio"). Ranks divide
    it as the tensor's rule says, unless `--mm-encoder-tp-mode data` makes every rank hold it whole; with
    `num_heads` the engine falls back to that by itself where tensor parallelism does not divide this number.
    `always_divided`: neither applies (projectors built of the decoder's layers).
    """

    modalities: tuple[str, ...]
    num_heads: int | None = None
    always_divided: bool = False


@dataclass(frozen=True, slots=True)
class ParameterTensor:
    """One tensor of the engine's model, undivided.

    `heads` belongs to the rule HEADS, `state_rows` to STATE_GROUPS. `element_bytes` None means the dtype that
    the model runs in. `stored` lists the checkpoint tensors that it is made of (empty: a buffer). `linear` is
    set on weights that a quantised checkpoint may store differently, `tower` on what belongs to an encoder,
    `multimodal_rope` on rotary tables that have more rows in older releases.
    `after_load`: a copy that the engine makes of the weight in `linear` once it is loaded, in the dtype that
    the model runs in, and only where that weight is quantised. `used_by` names the layers that share a table;
    a stage without any of them lacks it (empty: it is wherever `place` says). `whole_in_sequence_parallel`:
    ranks that hand each other parts of the sequence hold it whole (shared experts). `least_divided`: the least
    size of an expert's divided dimension on a rank, to which it is padded.
    """

    name: str
    shape: tuple[int, ...]
    shard: Shard
    place: Place
    stored: tuple[StoredTensor, ...] = ()
    heads: QkvHeads | None = None
    element_bytes: int | None = None
    linear: Linear | None = None
    state_rows: StateRows | None = None
    tower: Tower | None = None
    multimodal_rope: bool = False
    after_load: bool = False
    used_by: tuple[int, ...] = ()
    whole_in_sequence_parallel: bool = False
    least_divided: int = 0
