"""Lossy ways to hold a model, and which of them may be chosen: allowed by policy, and with fast kernels on the GPU.

A variant is a checkpoint, a way to quantise it on load, and a format of the KV cache. What is lossy is named in words,
since a person has to be able to say what was traded. Which formats are fast on which GPU is data (fast_kernels.toml).
Nothing here decides that a loss is worth it: the search does, and the accuracy check has the last word.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import prod
from typing import Any, Final

from stowage.api.refusal import Refusal
from stowage.api.v1alpha1 import LLMDeploymentSpec, PrecisionPolicy
from stowage.hardware.gpu import Gpu
from stowage.memory.quantized.on_load import load_peak_holds_model, quantized_on_load
from stowage.memory.release.engine_version import EngineVersion, release_numbers
from stowage.model.profile import ModelProfile
from stowage.model.tensors import Scheme

_ON_LOAD: Final = ("fp8_per_tensor", "fp8")
"""The engine's names of quantising to fp8 while loading, the newer one first."""

_CACHES: Final = ("fp8", "int8_per_token_head")
_LEAST_BITS: Final = {PrecisionPolicy.EIGHT_BIT: 8, PrecisionPolicy.FOUR_BIT: 4}
_BITS: Final[Mapping[str, int]] = {
    "fp8": 8, "int8": 8, "mxfp8": 8, "int4": 4, "nvfp4": 4, "mxfp4": 4, "fp4": 4, "nf4": 4,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class LossyOption:
    """A lossy checkpoint that the user allows: where it is, and what is in it."""

    source: str
    profile: ModelProfile


@dataclass(frozen=True, slots=True)
class Variant:
    """How a model is held. `lossy` None: exactly as the checkpoint says.

    `source` is set where another checkpoint is served, `quantization` where the engine quantises while loading,
    `kv_cache_dtype` where the cache is held in a format that the spec does not pin.
    """

    profile: ModelProfile
    lossy: str | None = None
    source: str | None = None
    quantization: str | None = None
    kv_cache_dtype: str | None = None

    @property
    def changes_weights(self) -> bool:
        """Whether weights are held in another format than those of the spec's checkpoint."""
        return self.source is not None or self.quantization is not None


def lossy_variants(
    profile: ModelProfile,
    spec: LLMDeploymentSpec,
    version: EngineVersion,
    alternatives: tuple[LossyOption, ...] = (),
) -> tuple[Variant, ...]:
    """List what the policy allows, the least change first; empty under Checkpoint or without an accuracy check."""
    policy = spec.precision.policy
    if policy is PrecisionPolicy.CHECKPOINT or spec.precision.accuracy is None:
        return ()
    plain = Variant(profile)
    weights = [plain, *_on_load(profile, version), *_checkpoints(alternatives, _LEAST_BITS[policy])]
    caches: list[str | None] = [None]
    if spec.precision.kv_cache.lower() == "auto" and profile.kv_cache_dtype is None:
        caches += [name for name in _CACHES if _cache_row(name, None, version) is not None]
    found = (_joined(each, cache_format) for each in weights for cache_format in caches)
    return tuple(each for each in found if each.lossy is not None)


def eight_bit_on_load(profile: ModelProfile, version: EngineVersion) -> Variant | None:
    """Give the variant that quantises to fp8 while loading, whatever the policy; None where there is none."""
    return next(_on_load(profile, version), None)


def helps(variant: Variant, gpu: Gpu, version: EngineVersion) -> str | None:
    """Say which phases run faster on that GPU: "both", "decode", or "cache"; None where kernels are not fast."""
    if variant.kv_cache_dtype is not None and _cache_row(variant.kv_cache_dtype, gpu, version) is None:
        return None
    if not variant.changes_weights:
        return "cache"
    scheme = main_scheme(variant, version)
    if scheme is None:
        return "both"
    row = _weights_row(scheme, gpu, version)
    return None if row is None else str(row["helps"])


def main_scheme(variant: Variant, version: EngineVersion) -> Scheme | None:
    """Give the layout that most quantised elements have once loaded; None where nothing is quantised."""
    held = quantized_on_load(variant.profile, variant.quantization, version)
    return None if isinstance(held, Refusal) else _main_scheme(held)


def weight_bits(profile: ModelProfile) -> int:
    """Give the bits per element of the format that most quantised weights have; 16 for a plain checkpoint."""
    scheme = _main_scheme(profile)
    return 16 if scheme is None else _BITS.get(scheme.weight, 8)


@cache
def _main_scheme(profile: ModelProfile) -> Scheme | None:
    elements: dict[Scheme, int] = {}
    for layer in profile.layers:
        for tensor in layer.tensors:
            if tensor.linear is not None and tensor.linear.scheme is not None:
                scheme = tensor.linear.scheme
                elements[scheme] = elements.get(scheme, 0) + prod(tensor.shape)
    return max(elements, key=lambda scheme: (elements[scheme], scheme.weight), default=None)


def _on_load(profile: ModelProfile, version: EngineVersion) -> Iterator[Variant]:
    if profile.quantization is not None:
        return
    for name in _ON_LOAD:
        known = not isinstance(quantized_on_load(profile, name, version), Refusal)
        if known and not load_peak_holds_model(name, version):
            yield Variant(profile, "fp8 weights, quantised on load", quantization=name)
            return


def _checkpoints(alternatives: tuple[LossyOption, ...], least_bits: int) -> Iterator[Variant]:
    for option in alternatives:
        if weight_bits(option.profile) >= least_bits:
            scheme = _main_scheme(option.profile)
            words = "other" if scheme is None else scheme.weight
            yield Variant(option.profile, f"{words} checkpoint {option.source}", source=option.source)


def _joined(weights: Variant, cache_format: str | None) -> Variant:
    if cache_format is None:
        return weights
    if weights.profile.kv_cache_dtype is not None:
        return Variant(weights.profile)
    words = f"{cache_format} KV cache"
    lossy = words if weights.lossy is None else f"{weights.lossy}, {words}"
    return Variant(weights.profile, lossy, weights.source, weights.quantization, cache_format)


def _weights_row(scheme: Scheme, gpu: Gpu, version: EngineVersion) -> Mapping[str, Any] | None:
    for row in _table()["weights"]:
        multiplied = row.get("activations", scheme.activation or "") == (scheme.activation or "")
        if scheme.weight in row["formats"] and multiplied and _holds(row, gpu, version):
            return dict(row)
    return None


def _cache_row(name: str, gpu: Gpu | None, version: EngineVersion) -> Mapping[str, Any] | None:
    rows = (row for row in _table()["kv"] if name in row["formats"] and _holds(row, gpu, version))
    return next(rows, None)


def _holds(row: Mapping[str, Any], gpu: Gpu | None, version: EngineVersion) -> bool:
    release = release_numbers(version.version) or ()
    since, until = release_numbers(row.get("since", "0.0.0")), release_numbers(row.get("until", "999.0.0"))
    if not (since or ()) <= release < (until or ()):
        return False
    if gpu is None:
        return True
    number = 10 * gpu.compute_capability[0] + gpu.compute_capability[1]
    return bool(row["capability"][0] <= number <= row["capability"][1])


@cache
def _table() -> dict[str, Any]:
    text = files("stowage.planning.search").joinpath("fast_kernels.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)
