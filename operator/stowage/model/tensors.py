"""The vocabulary for tensors: what one is made of, how ranks split it, which pipeline stages hold it.

Builders (one per kind of architecture) write tensor lists in these terms; what a rank then holds is worked
out in `stowage.memory`. New layouts (experts, latent attention, packed weights) are added as new rules
here, never as special cases elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Shard(Enum):
    """How tensor-parallel ranks split a tensor."""

    REPLICATED = "every rank holds it whole"
    COLUMNS = "dimension 0 is divided"
    ROWS = "dimension 1 is divided"
    HEADS = "query heads are divided; key and value heads too, or replicated where there are fewer than ranks"
    VOCABULARY = "dimension 0 is padded to a multiple of 64, then divided"


class Place(Enum):
    """Which pipeline stages hold a tensor."""

    LAYER = "the stage that has the layer"
    FIRST = "the first stage"
    LAST = "the last stage"
    BOTH_ENDS = "the first and the last stage"
    EVERY = "every stage"


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor under its name in the safetensors file; `{}` in the name stands for the layer."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ParameterTensor:
    """One tensor of the engine's model, undivided.

    `heads` is (query heads, key/value heads, head size) for the rule HEADS. `element_bytes` None means the
    dtype that the model runs in. `stored` lists the checkpoint tensors that it is made of (empty: a
    buffer).
    """

    name: str
    shape: tuple[int, ...]
    shard: Shard
    place: Place
    stored: tuple[StoredTensor, ...] = ()
    heads: tuple[int, int, int] | None = None
    element_bytes: int | None = None
