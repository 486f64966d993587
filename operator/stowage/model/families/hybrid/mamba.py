"""Pure state space models: Mamba, FalconMamba and Mamba 2.

There is no attention, so nothing grows with the context. Embedding, norm and head are built on every pipeline
stage. Sources: vllm/model_executor/models/{mamba,mamba2}.py (0.32.0) and the class defaults of transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from stowage.model.anatomy import Anatomy
from stowage.model.blocks import Tensors, whole
from stowage.model.config_fields import BadField, count, flag
from stowage.model.families.hybrid.mixers import MixerBiases, mamba1, mamba2
from stowage.model.families.hybrid.parts import chunk_size, ends_on_every_stage, with_defaults
from stowage.model.profile import LayerProfile, StateProfile
from stowage.model.rope import no_rope

_COMMON: Final = {
    "conv_kernel": 4,
    "expand": 2,
    "num_hidden_layers": 32,
    "state_size": 16,
    "tie_word_embeddings": True,
    "use_bias": False,
    "use_conv_bias": True,
}
DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "MambaForCausalLM": {**_COMMON, "vocab_size": 50280, "hidden_size": 768},
    "FalconMambaForCausalLM": {**_COMMON, "vocab_size": 50280, "hidden_size": 768},
    "Mamba2ForCausalLM": {
        **_COMMON,
        "vocab_size": 32768,
        "hidden_size": 4096,
        "num_hidden_layers": 64,
        "state_size": 128,
        "num_heads": 128,
        "head_dim": 64,
        "n_groups": 8,
        "tie_word_embeddings": False,
    },
}
"""Class defaults of transformers (MambaConfig, FalconMambaConfig, Mamba2Config)."""

_LAYER: Final = "backbone.layers.{}"


def read_mamba(config: Mapping[str, Any], architecture: str) -> Anatomy:
    """Read one model without attention; raises BadField for missing, wrong or not supported values."""
    fields = with_defaults(config, DEFAULTS[architecture])
    hidden_size, tied = count(fields, "hidden_size"), flag(fields, "tie_word_embeddings")
    state, mixer = (
        _second(fields, hidden_size)
        if architecture == "Mamba2ForCausalLM"
        else _first(fields, hidden_size)
    )  # fmt: skip
    layer = LayerProfile((state,), None, (*mixer, whole(f"{_LAYER}.norm.weight", (hidden_size,))))
    ends = ends_on_every_stage(
        count(fields, "vocab_size"),
        hidden_size,
        tied=tied,
        embedding="backbone.embeddings",
        norm="backbone.norm_f.weight",
    )
    return Anatomy(
        hidden_size=hidden_size,
        vocab_size=count(fields, "vocab_size"),
        layers=(layer,) * count(fields, "num_hidden_layers"),
        outer_tensors=ends,
        tie_word_embeddings=tied,
        rope=no_rope(config),
    )


READERS: Final = {name: partial(read_mamba, architecture=name) for name in DEFAULTS}
"""The architectures of this file and their readers."""


def _first(fields: Mapping[str, Any], hidden_size: int) -> tuple[StateProfile, Tensors]:
    state = StateProfile(
        "mamba1",
        conv_kernel=count(fields, "conv_kernel"),
        inner_size=_inner_size(fields, hidden_size),
        state_size=count(fields, "state_size"),
    )
    # FalconMamba normalises inside the mixer, with norms that have no weights.
    biases = MixerBiases(flag(fields, "use_bias"), flag(fields, "use_conv_bias"), norm=False)
    rank = time_step_rank(fields, "time_step_rank", hidden_size)
    return state, mamba1(f"{_LAYER}.mixer", state, hidden_size, biases, rank)


def _second(fields: Mapping[str, Any], hidden_size: int) -> tuple[StateProfile, Tensors]:
    heads, head_dim = count(fields, "num_heads"), count(fields, "head_dim")
    inner = _inner_size(fields, hidden_size)
    if heads * head_dim != inner:
        raise BadField(
            f"config.json says num_heads: {heads}; times head_dim {head_dim} it must be the inner size {inner}."
        )
    state = StateProfile(
        "mamba2",
        conv_kernel=count(fields, "conv_kernel"),
        inner_size=inner,
        state_size=count(fields, "state_size"),
        num_heads=heads,
        head_dim=head_dim,
        num_groups=count(fields, "n_groups"),
        chunk_size=chunk_size(fields),
    )
    biases = MixerBiases(flag(fields, "use_bias"), flag(fields, "use_conv_bias"))
    return state, mamba2(f"{_LAYER}.mixer", state, hidden_size, biases)


def _inner_size(fields: Mapping[str, Any], hidden_size: int) -> int:
    return count(fields, "intermediate_size", count(fields, "expand") * hidden_size)


def time_step_rank(fields: Mapping[str, Any], name: str, hidden_size: int) -> int:
    """Read the rank of the time step projection; "auto" and absent mean a sixteenth of the hidden size."""
    if fields.get(name, "auto") == "auto":
        return -(-hidden_size // 16)
    return count(fields, name)
