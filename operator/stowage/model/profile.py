"""The model profile: everything about a model that sizing and forecasting need, and nothing else.

A profile is a value: it is made once from a checkpoint summary, is hashable, and is compared, cached and
passed around freely. It holds facts of the model, never choices of a deployment, and it must never be
filled with a guess: what is not known is refused before a profile exists.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AttentionProfile:
    """Grouped-query attention of one layer; `sliding_window` in tokens, None where every token is kept."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: bool = False
    sliding_window: int | None = None


@dataclass(frozen=True, slots=True)
class MlpProfile:
    """A gated feed-forward block (gate, up, down)."""

    intermediate_size: int
    bias: bool = False


@dataclass(frozen=True, slots=True)
class LayerProfile:
    """One decoder layer. `norm_count` counts norms over the hidden size, not those over single heads."""

    attention: AttentionProfile
    mlp: MlpProfile
    norm_count: int = 2


@dataclass(frozen=True, slots=True)
class RopeCache:
    """A table of cosines and sines, `rows` × `rotary_dim`, that layers with the same embedding share."""

    rows: int
    rotary_dim: int


@dataclass(frozen=True, slots=True)
class ModelProfile:
    """A model as it will be served.

    `dtype` is what the engine runs under `--dtype auto`, `checkpoint_dtype` what lies on disk.
    `max_model_len` is the longest context that the engine accepts without an override,
    `default_max_model_len` what it takes when nobody says. `checkpoint_bytes` are exact tensor bytes from
    the safetensors headers (None: only config.json is known) and `parameter_evidence` says which of the two
    the tensor list was checked against. `notes` are sentences for people.
    """

    source: str
    revision: str
    architecture: str
    model_type: str
    hidden_size: int
    vocab_size: int
    layers: tuple[LayerProfile, ...]
    tie_word_embeddings: bool
    dtype: str
    checkpoint_dtype: str
    max_model_len: int
    default_max_model_len: int
    rope: tuple[RopeCache, ...]
    checkpoint_bytes: int | None = None
    parameter_evidence: str = "config"
    notes: tuple[str, ...] = ()

    def __hash__(self) -> int:
        """Hash by what tells profiles apart; hashing every layer for each cache look-up is too slow."""
        return hash(
            (self.source, self.revision, self.architecture, self.hidden_size, len(self.layers), self.dtype)
        )

    @property
    def num_layers(self) -> int:
        """Number of decoder layers."""
        return len(self.layers)

    @property
    def padded_vocab_size(self) -> int:
        """Vocabulary rounded up to a multiple of 64, as the engine allocates and splits it."""
        return (self.vocab_size + 63) // 64 * 64
