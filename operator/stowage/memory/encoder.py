"""What the vision or audio encoder adds to the profiling run: its own peak, and the embeddings it leaves.

The engine profiles one modality, the one whose largest item has the most tokens, with as many items as its
budget has room for, in one unchunked pass; the embeddings stay while the decoder runs
(vllm/multimodal/encoder_budget.py, v1/core/encoder_cache_manager.py, profile_run of both runners, 0.32.0).
Nothing is added for a language model only, nor where every modality's limit is 0. Sizes of items come from the
profile; nothing here knows an architecture.
"""

from __future__ import annotations

from dataclasses import dataclass

from stowage.memory.estimates import NOTHING, Estimate, encoder_activation_band
from stowage.memory.layout import RankLayout
from stowage.memory.setting import Setting
from stowage.memory.shape import EngineShape
from stowage.model.profile import EncoderProfile, ModelProfile


@dataclass(frozen=True, slots=True)
class EncoderRun:
    """What the engine profiles: `items` of the largest size of one modality, within a budget in tokens.

    The log line "Encoder cache will be initialized with a budget of … tokens, and profiled with … items"
    states `budget_tokens`, `items` and the modality.
    """

    encoder: EncoderProfile
    budget_tokens: int
    item_tokens: int
    items: int

    @property
    def patches(self) -> int:
        """Positions inside the tower over all items."""
        whole, tokens = self.encoder.max_item_patches, self.encoder.max_item_tokens
        return self.items * (whole * self.item_tokens // tokens)


def absent_modalities(profile: ModelProfile, shape: EngineShape) -> tuple[str, ...]:
    """Give the modalities that the deployment does not accept, for `RankLayout.absent_modalities`.

    Towers that serve only these are not loaded.
    """
    if not profile.encoders:
        return ()
    if not (shape.language_model_only or shape.limit_mm_per_prompt):
        return ()
    kinds = dict.fromkeys(encoder.modality for encoder in profile.encoders)
    limits = dict(shape.limit_mm_per_prompt)
    return tuple(kind for kind in kinds if shape.language_model_only or limits.get(kind) == 0)


def encoder_run(profile: ModelProfile, shape: EngineShape) -> EncoderRun | None:
    """Give what is profiled, or None for models and deployments without an encoder."""
    if not profile.encoders:
        return None
    absent, length = absent_modalities(profile, shape), shape.max_model_len
    loaded = [(_item_tokens(each, length), each) for each in profile.encoders if each.modality not in absent]
    if not loaded:
        return None
    tokens, encoder = max(loaded, key=lambda entry: (entry[0], entry[1].modality))
    budget = max(shape.max_num_batched_tokens, tokens)
    limit = dict(shape.limit_mm_per_prompt).get(encoder.modality, encoder.max_items_per_prompt)
    per_prompt = max(1, min(limit, shape.max_model_len // tokens))
    items = max(1, min(budget // tokens, shape.max_num_seqs * per_prompt))
    return EncoderRun(encoder, budget, tokens, items)


def encoder_bytes(setting: Setting, layout: RankLayout, decoder_peak: Estimate) -> Estimate:
    """Give the bytes to add to the decoder's transient peak of the profiling run; never below 0.

    The encoder runs first, then the decoder while the embeddings are kept, so the whole peak is the larger of
    the encoder's own and decoder plus embeddings: `decoder_peak.plus(encoder_bytes(...))` is the activation
    term. With the V2 runner only the first pipeline stage runs the encoder, and before 0.28 none does. The
    encoder's peak has a wide band (estimates.toml, encoder_activation); the embeddings are exact.
    """
    if setting.runner == "V2" and not (layout.is_first and setting.version.v2_profiles_encoders):
        return NOTHING
    run = encoder_run(setting.profile, setting.shape)
    if run is None:
        return NOTHING
    kept = run.items * run.item_tokens * run.encoder.output_size * setting.element_bytes
    peak = encoder_peak_bytes(run, layout, setting.element_bytes)
    return Estimate(
        max(kept, peak.value + kept - decoder_peak.value),
        max(kept, peak.low + kept - decoder_peak.low),
        max(kept, peak.high + kept - decoder_peak.high),
    )


def encoder_peak_bytes(run: EncoderRun, layout: RankLayout, element_bytes: int) -> Estimate:
    """Give what the widest part of one tower layer holds for all positions of all items at once.

    Residual and norm, and beside them either queries, keys and values before and after rotation with the
    output of attention, or the feed-forward block; ranks share the latter two where the tower is divided.
    """
    encoder = run.encoder
    ranks = 1 if _is_whole(encoder, layout) else layout.tensor_parallel_size
    attention = 6 * encoder.hidden_size / ranks
    feed_forward = (3 if encoder.gated else 2) * encoder.intermediate_size / ranks
    width = 2 * encoder.hidden_size + max(attention, feed_forward)
    return encoder_activation_band().scaled(run.patches * width * element_bytes)


def _is_whole(encoder: EncoderProfile, layout: RankLayout) -> bool:
    falls_back = encoder.whole_where_indivisible and encoder.num_heads % layout.tensor_parallel_size != 0
    return falls_back or not encoder.divided or layout.encoder_data_parallel


def _item_tokens(encoder: EncoderProfile, max_model_len: int) -> int:
    """Give the tokens of the largest item: the engine cuts a video to the steps that the context holds."""
    if not encoder.frame_tokens:
        return encoder.max_item_tokens
    steps = max(1, min(encoder.max_item_tokens, max_model_len) // encoder.frame_tokens)
    return min(encoder.max_item_tokens, steps * encoder.frame_tokens)
