"""Comparing what config.json promises with what the safetensors headers hold.

Both describe the same model, so they must agree tensor by tensor. Where they do, the weights are known to the
byte; where only names differ, it is noted; where sizes differ the engine would fail while loading, so it is
refused here, in seconds instead of minutes.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from stowage.api.reasons import Reason
from stowage.api.refusal import Refusal
from stowage.model.architectures import stored_tensors
from stowage.model.profile import ModelProfile
from stowage_runtime.contract import CheckpointSummary

_HINT = "Use a checkpoint whose config.json belongs to its weights (`stowage inspect SOURCE` shows both)."

_OPTIONAL = (".input_scale", ".input_global_scale", ".weight_shape")
"""Endings of tensors that some tools leave out of quantised checkpoints, and that the engine can do without."""

Shapes = dict[str, tuple[int, ...]]


def compare(profile: ModelProfile, summary: CheckpointSummary) -> tuple[str, ...] | Refusal:
    """Compare headers and profile; gives notes for people, or refuses a checkpoint that cannot load."""
    expected = stored_tensors(profile)
    found = {
        name: tuple(group.shape)
        for group in summary.tensors
        for name in group.names()
        if not _is_derived(name, profile.tie_word_embeddings)
    }
    both = expected.keys() & found.keys()
    wrong = min((name for name in both if _squeezed(expected[name]) != _squeezed(found[name])), default=None)
    if wrong is not None:
        return _mismatch(wrong, expected[wrong], found[wrong])
    missing = {name for name in expected.keys() - found.keys() if not name.endswith(_OPTIONAL)}
    extra = found.keys() - expected.keys()
    if missing and _elements(expected, missing) != _elements(found, extra):
        example = min(missing)
        message = (
            f"The safetensors headers lack {len(missing)} tensors that config.json promises, as {example}."
        )
        return Refusal(Reason.INVALID_CHECKPOINT, message, _HINT)
    if missing:
        return (f"{len(missing)} tensors have other names than usual (as {min(extra)}); their sizes agree.",)
    if extra:
        return (f"{len(extra)} tensors of the checkpoint are not loaded, as {min(extra)}.",)
    return ()


def _is_derived(name: str, tied: bool) -> bool:
    """Tell tensors that are not loaded: rotary frequencies, and a head tied to the embedding."""
    return name.endswith("rotary_emb.inv_freq") or (tied and name == "lm_head.weight")


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Leave out dimensions of one, which exporters add to and drop from scales."""
    return tuple(size for size in shape if size != 1)


def _elements(shapes: Shapes, names: Iterable[str]) -> int:
    return sum(prod(shapes[name]) for name in names)


def _mismatch(name: str, expected: tuple[int, ...], found: tuple[int, ...]) -> Refusal:
    message = f"Tensor {name} has shape {list(found)}, but config.json makes it {list(expected)}."
    return Refusal(Reason.INVALID_CHECKPOINT, message, _HINT)
