"""What decides the KV cache of a model besides its context length and batch limits, as one hashable value.

It is the key under which caches are remembered, so it must hold everything that the layers' pages and groups
depend on, and nothing that a search varies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from stowage.memory.kv.attention_backend import Conditions
from stowage.memory.kv.rules import KvRules
from stowage.memory.pipeline import stage_layers
from stowage.model.profile import AttentionProfile, LayerProfile, Mixer, ModelProfile, StateProfile

_WITHOUT_DRAFT_CACHE: Final = frozenset({"ngram", "ngram_gpu", "suffix", "medusa", "mlp_speculator"})
"""Ways to guess tokens that need no attention layers of their own."""


@dataclass(frozen=True, slots=True)
class CacheQuestion:
    """The model, the release's rules, the device and the settings that the cache depends on.

    `drafts` tokens are guessed at a time by `draft_method`, with the layers of `draft` or else the checkpoint's
    own draft layers. `prefix_caching` False: turned off. `hybrid_manager` False: layers that keep less than all
    tokens are cached like those that keep all. `encoder_tokens` is what cross attention is given room for where
    that is not the encoder's own length.
    """

    profile: ModelProfile
    rules: KvRules
    where: Conditions
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    context_parallel_size: int = 1
    prefix_caching: bool = True
    hybrid_manager: bool = True
    draft_method: str | None = None
    drafts: int = 0
    draft: ModelProfile | None = None
    encoder_tokens: int | None = None

    @property
    def draft_layers(self) -> tuple[LayerProfile, ...]:
        """Layers that guess tokens and keep a cache; they run on the last stage."""
        if self.drafts == 0 or self.draft_method in _WITHOUT_DRAFT_CACHE:
            return ()
        return self.profile.draft_layers if self.draft is None else self.draft.layers

    @property
    def uses_groups(self) -> bool:
        """Whether the engine forms groups by kind for this model, or caches every layer like full attention."""
        if not any(isinstance(mixer, AttentionProfile) and mixer.chunk for mixer in self.mixers()):
            return self.hybrid_manager
        return self.hybrid_manager and self.rules.chunks != "merged" and not self.draft_layers

    def layers(self) -> list[tuple[LayerProfile, int]]:
        """Give all layers with their pipeline stages, draft layers last.

        V0 makes as many caches for a decoder with cross attention as the encoder has layers, since
        config.json's num_hidden_layers is the encoder's there.
        """
        profile, stages = self.profile, self.pipeline_parallel_size
        layers = profile.layers
        if self.rules.attention_only and profile.encoders and has_cross_attention(profile):
            layers = layers[:1] * profile.encoders[0].num_layers
        here = stage_layers(len(layers), stages)
        placed = [(layers[index], stage) for stage in range(stages) for index in here[stage]]
        return placed + [(layer, stages - 1) for layer in self.draft_layers]

    def distinct_layers(self) -> Iterator[LayerProfile]:
        """Give each kind of layer once, in the order of the model."""
        yield from dict.fromkeys((*self.profile.layers, *self.draft_layers))

    def mixers(self) -> Iterator[Mixer]:
        """Give each kind of mixer once, in the order of the model."""
        yield from dict.fromkeys(mixer for layer in self.distinct_layers() for mixer in layer.mixers)


@lru_cache(maxsize=256)
def keeps_states(profile: ModelProfile) -> bool:
    """Whether any layer keeps a state of fixed size, or an encoder's states."""
    states = any(
        isinstance(mixer, StateProfile) for layer in dict.fromkeys(profile.layers) for mixer in layer.mixers
    )
    return states or has_cross_attention(profile)


@lru_cache(maxsize=256)
def has_cross_attention(profile: ModelProfile) -> bool:
    """Whether the decoder attends to an encoder's states."""
    return any(
        isinstance(mixer, AttentionProfile) and mixer.source == "cross"
        for layer in profile.layers
        for mixer in layer.mixers
    )
