"""Weights of what guesses tokens: a draft model of its own, or the checkpoint's multi-token-prediction layers.

Drafts live on the last pipeline stage and share embedding and output head with the model where they are part of
its checkpoint (vllm/v1/spec_decode, models/deepseek_mtp.py, models/qwen3_5_mtp.py; 0.32.0).
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Final

from stowage.memory.allocator import NO_BYTES, AllocatedBytes
from stowage.memory.assumed_draft import assumed_draft, assumed_draft_band
from stowage.memory.estimates import NOTHING, Estimate
from stowage.memory.layout import RankLayout
from stowage.memory.quantized.kernels import Kernels
from stowage.memory.shape import SpeculativeSettings
from stowage.memory.weights import rank_weights
from stowage.model.profile import ModelProfile

_WITHOUT_WEIGHTS: Final = frozenset({"ngram", "ngram_gpu", "suffix"})
"""Ways to guess tokens that need no model."""


def draft_weights(
    profile: ModelProfile,
    layout: RankLayout,
    dtype: str,
    speculative: SpeculativeSettings | None,
    split_limit_bytes: int | None,
    kernels: Kernels | None,
) -> AllocatedBytes:
    """Give what the draft of a model takes on a rank."""
    if speculative is None or speculative.method in _WITHOUT_WEIGHTS or not layout.is_last:
        return NO_BYTES
    draft = draft_of(profile, speculative) or _own_draft(profile)
    if draft is None:
        return NO_BYTES
    place = replace(layout, pipeline_parallel_size=1, stage=0)
    return rank_weights(draft, place, dtype, split_limit_bytes, kernels)


def draft_of(profile: ModelProfile, speculative: SpeculativeSettings | None) -> ModelProfile | None:
    """Give the draft beside the model: the one that is known, else the assumed one; None where the model has its own.

    The checkpoint's own draft layers serve multi-token prediction only.
    """
    if speculative is None or speculative.draft is not None:
        return speculative.draft if speculative else None
    if speculative.method == "mtp" and profile.draft_layers:
        return None
    return assumed_draft(profile, speculative.method)


def uncertain_draft_bytes(
    profile: ModelProfile, speculative: SpeculativeSettings | None, weight_bytes: int
) -> Estimate:
    """Give how far the weights of an assumed draft may be off, around 0; nothing where the draft is known."""
    if speculative is None or speculative.draft is not None:
        return NOTHING
    if draft_of(profile, speculative) is None:
        return NOTHING
    off = assumed_draft_band(speculative.method) * weight_bytes
    return Estimate(0.0, -off, off)


@lru_cache(maxsize=64)
def _own_draft(profile: ModelProfile) -> ModelProfile | None:
    """Give the checkpoint's own draft layers as a model of their own, without embedding and head."""
    if not profile.draft_layers:
        return None
    return replace(
        profile,
        source=f"{profile.source}#draft",
        layers=profile.draft_layers,
        outer_tensors=(),
        draft_layers=(),
        encoders=(),
    )
