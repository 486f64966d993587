"""How many kernels a layer launches: what small batches wait for, since each costs a latency however little it does.

Counted in the compiled graphs of vLLM 0.12 to 0.19 (norms fused with residual additions and static quantisation,
activations with quantisation); exchanges are counted apart.
"""

from __future__ import annotations

from typing import Final

from stowage.hardware.gpu import Gpu
from stowage.model.profile import (
    AttentionProfile,
    LatentAttentionProfile,
    LayerProfile,
    MoeProfile,
    StateProfile,
)
from stowage.model.tensors import ParameterTensor, Shard

_ATTENTION: Final = 4
"""Rotary embedding, cache write, attention, and putting its split parts together."""

_LATENT: Final = 8
"""The same, two norms of latents, and two products with the absorbed up-projections."""

_STATE: Final = 6
"""Convolution, gates, state update, output norm and gate, and two copies of states."""

_EXPERTS: Final = 8
"""Top-k with its scores (2), sorting tokens by expert (2), two products, activation, and the weighted sum."""

_FUSED_EXPERTS: Final = 5
"""Where one library does all of it (FlashInfer on compute capability 10): top-k, sorting, two products with
activation and quantisation inside, and the weighted sum."""

_IN_FLASHINFER: Final = frozenset({"fp8", "nvfp4", "mxfp4", "mxfp8"})

_SMALLEST_MATRIX: Final = 32
"""Tensors with two dimensions of which one is smaller are tables and kernels of convolutions."""

_DIVIDED_NORM: Final = 4
"""A norm over heads that ranks share: squares, sums, and scaling of queries and keys, unfused."""


def layer_kernels(layer: LayerProfile, gpu: Gpu) -> int:
    """Give the number of kernels that a decoder layer launches in a step."""
    products = [tensor for tensor in layer.tensors if is_product(tensor)]
    count = sum(1 + quantises(tensor) for tensor in products)
    for mixer in layer.mixers:
        if isinstance(mixer, LatentAttentionProfile):
            count += _LATENT
        elif isinstance(mixer, AttentionProfile):
            count += _ATTENTION
        elif isinstance(mixer, StateProfile):
            count += _STATE
    count += 1 if layer.mixers else 0
    if layer.feed_forward is not None:
        count += 2
    if isinstance(layer.feed_forward, MoeProfile):
        experts = [t for t in layer.tensors if t.linear is not None and t.linear.role == "experts"]
        count += _expert_kernels(experts, gpu)
    return count + _DIVIDED_NORM * any(
        t.name.endswith("q_norm.weight") and t.shard is Shard.COLUMNS for t in layer.tensors
    )


def _expert_kernels(experts: list[ParameterTensor], gpu: Gpu) -> int:
    schemes = {
        t.linear.scheme.weight for t in experts if t.linear is not None and t.linear.scheme is not None
    }
    fused = bool(schemes & _IN_FLASHINFER) and (10, 0) <= gpu.compute_capability < (11, 0)
    if fused:
        return _FUSED_EXPERTS
    return _EXPERTS - 1 + sum(quantises(tensor) for tensor in experts)


def is_product(tensor: ParameterTensor) -> bool:
    """Whether a layer's tensor is a matrix that every token is multiplied with, experts apart."""
    if len(tensor.shape) != 2 or tensor.tower is not None or tensor.after_load:
        return False
    if tensor.linear is None:
        return bool(tensor.stored) and min(tensor.shape) >= _SMALLEST_MATRIX
    return tensor.linear.role in ("linear", "router")


def quantises(tensor: ParameterTensor) -> bool:
    """Whether a kernel of its own quantises what a product takes: scales of the moment, and scaled four-bit ones."""
    scheme = tensor.linear.scheme if tensor.linear else None
    if scheme is None or scheme.activation is None:
        return False
    return not scheme.static_activation or scheme.weight.endswith("fp4")
