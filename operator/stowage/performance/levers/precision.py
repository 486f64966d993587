"""Levers on the precision of weights: fewer bits to read, and, where the GPU multiplies in them, faster products.

A quantised profile is made from the plain one by giving every matrix of the layers a scheme, as published checkpoints
have it; embeddings and the output head stay. Nothing here says what a format does to answers: that is measured, never
predicted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Final

from stowage.api.reasons import Reason
from stowage.api.refusal import Refusal
from stowage.model.profile import LayerProfile, ModelProfile
from stowage.model.quantization import complete_experts
from stowage.model.shared_layers import shared_layers
from stowage.model.tensors import ParameterTensor, Scheme
from stowage.performance.arithmetic import Arithmetic, arithmetic_of
from stowage.performance.levers.attempt import Attempt
from stowage.performance.levers.question import LeverQuestion
from stowage.performance.serving import Serving

_METHOD: Final = "compressed-tensors"

WEIGHT_ONLY_8: Final = Scheme(_METHOD, "int8", "channel")
WEIGHT_ONLY_4: Final = Scheme(_METHOD, "int4", "group", group_size=128)
W8A8_INT8: Final = Scheme(_METHOD, "int8", "channel", activation="int8")
W8A8_FP8: Final = Scheme(_METHOD, "fp8", "channel", activation="fp8")

_WANTED: Final = {"int8": Arithmetic.INT8, "fp8": Arithmetic.FP8}
_NO_KERNELS: Final = {
    "int8": "compute capability {capability} has no INT8 matrix kernels for 8-bit weights and activations "
    "(they need 7.5 to 9.0)",
    "fp8": "compute capability {capability} does not multiply in fp8 (that needs 8.9 or newer): the weights "
    "would be 8-bit only to read",
}


def precision_levers(question: LeverQuestion) -> Iterator[Attempt]:
    """Give the levers on weights: 8 and 4 bits to read alone, and 8 bits to compute in, by int8 and by fp8."""
    yield _weight_only(question, "weight-only 8 bit", "int8 weights, 16-bit arithmetic", WEIGHT_ONLY_8)
    yield _weight_only(
        question, "weight-only 4 bit", "int4 weights in groups of 128, 16-bit arithmetic", WEIGHT_ONLY_4
    )
    for name, scheme in (("W8A8 fp8", W8A8_FP8), ("W8A8 int8", W8A8_INT8)):
        yield _both(question, name, scheme)


@lru_cache(maxsize=64)
def quantized(profile: ModelProfile, scheme: Scheme) -> ModelProfile:
    """Give a plain profile as a checkpoint with this layout of every matrix in its layers would have it."""

    @shared_layers
    def converted(layer: LayerProfile) -> LayerProfile:
        tensors = tuple(_converted(tensor, scheme) for tensor in layer.tensors)
        return replace(layer, tensors=complete_experts(tensors))

    return replace(
        profile,
        source=f"{profile.source}#{scheme.weight}",
        layers=tuple(map(converted, profile.layers)),
        quantization=scheme.method,
    )


def _converted(tensor: ParameterTensor, scheme: Scheme) -> ParameterTensor:
    linear = tensor.linear
    if linear is None or linear.role not in ("linear", "experts") or tensor.tower is not None:
        return tensor
    return replace(tensor, linear=replace(linear, scheme=scheme))


def _weight_only(question: LeverQuestion, name: str, changes: str, scheme: Scheme) -> Attempt:
    share = question.share_of_time("weights") + question.share_of_time("moe")
    why = (
        f"decoding spends {share:.0%} of the GPU time on weights; prompts "
        f"({question.base.prefill_share:.0%}) are computed in 16 bits as before"
    )
    return Attempt(name, changes, _requantized(question, scheme), why, lossy=True)


def _both(question: LeverQuestion, name: str, scheme: Scheme) -> Attempt:
    gpu, part = question.serving.gpu, scheme.weight
    found: Serving | Refusal
    if arithmetic_of(scheme, gpu) is not _WANTED[part]:
        message = _NO_KERNELS[part].format(capability=gpu.capability)
        found = Refusal(Reason.UNSUPPORTED_QUANTIZATION, message)
    else:
        found = _requantized(question, scheme)
    share = question.share_of_time("weights") + question.share_of_time("moe")
    why = (
        f"products of prompts ({question.base.prefill_share:.0%} of the GPU time) and of decoding ({share:.0%}) "
        "run in 8 bits"
    )
    return Attempt(name, f"{part} weights and activations", found, why, lossy=True)


def _requantized(question: LeverQuestion, scheme: Scheme) -> Serving | Refusal:
    profile, shape = question.serving.profile, question.serving.shape
    held = profile.quantization or shape.quantization
    if held is not None:
        return Refusal(Reason.UNSUPPORTED_QUANTIZATION, f"the weights are quantised already, by {held}")
    return question.refit(profile=quantized(profile, scheme))
