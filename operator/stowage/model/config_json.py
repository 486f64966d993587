"""From a checkpoint summary to a model profile, or to a refusal that says why not.

The one entrance to this layer. Whatever is not understood (architecture, quantisation, rotary kind, mixed
windows, a missing field, headers that contradict the configuration) ends in a refusal with a sentence;
nothing is treated as if it were a Llama.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, Final

from stowage.api.reasons import Reason
from stowage.api.refusal import Refusal
from stowage.model.anatomy import Anatomy
from stowage.model.architectures import ARCHITECTURES
from stowage.model.checkpoint import compare
from stowage.model.config_fields import BadField, UnsupportedFeature, text_config, word
from stowage.model.dtype import element_type
from stowage.model.families.estimated import estimate, estimated_names
from stowage.model.known_total import with_total
from stowage.model.profile import ModelProfile
from stowage.model.quantization import with_quantization
from stowage_runtime.contract import CheckpointSummary

_QUANTIZED_BAND: Final = 0.25
"""Relative uncertainty of estimated weights that are quantised: lists of exceptions name modules by their names."""


def read_profile(summary: CheckpointSummary, *, guess: bool = False) -> ModelProfile | Refusal:
    """Read config.json and, where there are any, the headers; see `ModelProfile` for what results.

    Architectures that the engine serves and no reader knows are estimated where headers tell their bytes; with
    `guess` also from config.json alone, and so is every other that has the fields of a decoder.
    `ModelProfile.weight_band` and a note say so. Equal checkpoints give the same object.
    """
    answer = _read(summary, guess)
    return answer if isinstance(answer, Refusal) else _one_for_all(answer)


@lru_cache(maxsize=64)
def _one_for_all(profile: ModelProfile) -> ModelProfile:
    """Give one object for all equal profiles.

    What is remembered of a profile is looked up thousands of times for a plan; of the same object that takes no
    time, while comparing the tensors of two that are equal takes a millisecond.
    """
    return profile


def _read(summary: CheckpointSummary, guess: bool) -> ModelProfile | Refusal:
    try:
        profile = _unsupported(summary.config, guess) or with_quantization(_profile(summary, guess), summary)
    except UnsupportedFeature as problem:
        return Refusal(
            Reason.UNSUPPORTED_ARCHITECTURE, str(problem), "Use another model, or a newer version."
        )
    except BadField as problem:
        return Refusal(
            Reason.INVALID_MODEL_CONFIG, str(problem), "Repair config.json, or give a correct one."
        )
    if isinstance(profile, Refusal):
        return profile
    if profile.weight_band:
        return _estimated(profile, summary) if summary.tensors or guess else _without_headers(profile)
    if not summary.tensors:
        return profile
    notes = compare(profile, summary)
    if isinstance(notes, Refusal):
        return notes
    return replace(profile, parameter_evidence="headers", notes=profile.notes + notes)


def _estimated(profile: ModelProfile, summary: CheckpointSummary) -> ModelProfile:
    """Give an estimated profile with all that narrows or widens it: the checkpoint's bytes, its quantisation."""
    if profile.quantization:
        profile = replace(profile, weight_band=max(profile.weight_band, _QUANTIZED_BAND))
    if summary.tensors:
        profile = with_total(profile, summary.total_bytes)
    note = f"Weights are an estimate that may be {profile.weight_band:.0%} off."
    return replace(profile, notes=(*profile.notes, note))


def _without_headers(profile: ModelProfile) -> Refusal:
    """Refuse to size what is not described tensor by tensor from config.json alone: it may be far off."""
    return Refusal(
        Reason.UNSUPPORTED_ARCHITECTURE,
        f"{profile.architecture} is not described tensor by tensor, and config.json alone does not tell its bytes.",
        "Give the safetensors headers too: `stowage inspect SOURCE` prints them for a ConfigMap.",
    )


def _architecture(config: Mapping[str, Any]) -> str | None:
    stated = config.get("architectures")
    return stated[0] if isinstance(stated, list) and stated and isinstance(stated[0], str) else None


def _unsupported(config: Mapping[str, Any], guess: bool) -> Refusal | None:
    name = _architecture(config)
    if guess or name in ARCHITECTURES or name in estimated_names():
        return None
    if name is None:
        message = "config.json has no architectures, so the kind of model is not known."
        return Refusal(
            Reason.INVALID_MODEL_CONFIG, message, "Add the field, as in the model's own repository."
        )
    message = f"The architecture {name} is not supported by this version."
    near = get_close_matches(name, sorted(ARCHITECTURES), n=3, cutoff=0.5)
    hint = f"Of the {len(ARCHITECTURES)} that are, nearest by name: {', '.join(near)}." if near else ""
    return Refusal(Reason.UNSUPPORTED_ARCHITECTURE, message, hint)


def _anatomy(config: Mapping[str, Any], guess: bool) -> Anatomy:
    reader = ARCHITECTURES.get(_architecture(config) or "")
    if reader is None:
        return estimate(config, ARCHITECTURES)
    try:
        return reader(config)
    except UnsupportedFeature:
        if not guess:
            raise
        return estimate(config, ARCHITECTURES)


def _profile(summary: CheckpointSummary, guess: bool) -> ModelProfile:
    config = summary.config
    anatomy = _anatomy(config, guess)
    stored = _stored_dtype(summary)
    return ModelProfile(
        source=summary.source,
        revision=summary.revision or "",
        architecture=_architecture(config) or "",
        model_type=word(config, "model_type") or "",
        hidden_size=anatomy.hidden_size,
        vocab_size=anatomy.vocab_size,
        layers=anatomy.layers,
        outer_tensors=anatomy.outer_tensors,
        tie_word_embeddings=anatomy.tie_word_embeddings,
        dtype=_run_dtype(config, stored),
        checkpoint_dtype=stored,
        max_model_len=anatomy.rope.max_model_len,
        default_max_model_len=anatomy.rope.default_max_model_len,
        rope=(anatomy.rope.cache,),
        draft_layers=anatomy.draft_layers,
        encoders=anatomy.encoders,
        supports_pipeline=anatomy.supports_pipeline,
        min_first_stage_layers=anatomy.min_first_stage_layers,
        checkpoint_bytes=summary.total_bytes if summary.tensors else None,
        notes=(*((anatomy.rope.note,) if anatomy.rope.note else ()), *anatomy.notes),
        weight_band=anatomy.weight_band,
        items_in_one_batch=anatomy.items_in_one_batch,
        residual_streams=anatomy.residual_streams,
    )


def _declared_dtype(config: Mapping[str, Any]) -> str | None:
    for part in (config, text_config(config)):
        for name in ("dtype", "torch_dtype"):
            spelling = word(part, name)
            if spelling is not None:
                return _known_dtype(name, spelling)
    return None


def _known_dtype(name: str, spelling: str) -> str:
    known = element_type(spelling)
    if known is None:
        raise BadField(f"config.json says {name}: {spelling!r}; it must be bfloat16, float16 or float32.")
    return known


def _stored_dtype(summary: CheckpointSummary) -> str:
    """Find the floating point type of most bytes in the headers, else what config.json says, else float32.

    Packed tensors of quantised checkpoints have types of their own, which say nothing about the others.
    """
    weights: dict[str, int] = {}
    for group in summary.tensors:
        kind = element_type(group.dtype)
        if kind is not None:
            weights[kind] = weights.get(kind, 0) + group.count * group.tensor_bytes
    if weights:
        return max(weights, key=lambda kind: (weights[kind], kind))
    return _declared_dtype(summary.config) or "float32"


def _run_dtype(config: Mapping[str, Any], stored: str) -> str:
    """Find what the engine runs under `--dtype auto`: 32-bit checkpoints are cast to bfloat16."""
    declared = _declared_dtype(config) or stored
    return "bfloat16" if declared == "float32" else declared
