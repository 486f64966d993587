"""From the quantisation block of a checkpoint to a profile whose linear layers carry their layouts.

Layers that end up with the same layouts share one value again, so that counting distinct layers stays cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from stowage.api.reasons import Reason
from stowage.api.refusal import Refusal
from stowage.model.dtype import element_type
from stowage.model.profile import LayerProfile, ModelProfile
from stowage.model.quantization.compressed import read_compressed_tensors
from stowage.model.quantization.deepseek_v4 import with_own_experts
from stowage.model.quantization.fp8 import read_fbgemm, read_fp8
from stowage.model.quantization.headers import check_element_types, from_headers
from stowage.model.quantization.modelopt import read_modelopt, read_mxfp8
from stowage.model.quantization.module_names import module_names
from stowage.model.quantization.packed_int import read_auto_round, read_awq, read_gptq
from stowage.model.quantization.rules import QuantizationRules
from stowage.model.quantization.settings import QuantizationSettings, UnsupportedQuantization, find_settings
from stowage.model.quantization.stored import stored_module
from stowage.model.quantization.whole import read_bitsandbytes, read_mxfp4
from stowage.model.tensors import Linear, ParameterTensor, Scheme
from stowage_runtime.contract import CheckpointSummary

Reader = Callable[[QuantizationSettings], QuantizationRules]

_READERS: Final[Mapping[str, Reader]] = {
    "awq": read_awq,
    "auto-round": read_auto_round,
    "bitsandbytes": read_bitsandbytes,
    "compressed-tensors": read_compressed_tensors,
    "fbgemm_fp8": read_fbgemm,
    "fp8": read_fp8,
    "gptq": read_gptq,
    "inc": read_auto_round,
    "modelopt": read_modelopt,
    "modelopt_fp4": read_modelopt,
    "modelopt_mixed": read_modelopt,
    "modelopt_mxfp8": read_modelopt,
    "mxfp4": read_mxfp4,
    "mxfp8": read_mxfp8,
}
_HINT: Final = "Use the unquantised checkpoint of the model, or one quantised in another way."
_GGUF_HINT: Final = (
    "GGUF needs the separate vllm-gguf-plugin, which is not sized; use a safetensors checkpoint."
)


def with_quantization(profile: ModelProfile, summary: CheckpointSummary) -> ModelProfile | Refusal:
    """Give the profile with the layouts of a quantised checkpoint, or itself where it is not quantised.

    Raises BadField for a block whose values cannot be used.
    """
    try:
        settings = find_settings(summary)
        if settings is None:
            return _undeclared(summary) or profile
        if settings.method not in _READERS:
            return _unknown(settings)
        rules = with_own_experts(_READERS[settings.method](settings), summary.config)
        if not rules.listed and summary.tensors:
            rules = from_headers(rules, summary)
        quantised = _quantized(profile, rules)
        check_element_types(quantised, summary)
        return quantised
    except UnsupportedQuantization as problem:
        return Refusal(Reason.UNSUPPORTED_QUANTIZATION, str(problem), _HINT)


def _unknown(settings: QuantizationSettings) -> Refusal:
    method = settings.method
    message = f"The checkpoint is quantised ({settings.place}: method {method}), and its memory is not known."
    return Refusal(Reason.UNSUPPORTED_QUANTIZATION, message, _GGUF_HINT if method == "gguf" else _HINT)


def _undeclared(summary: CheckpointSummary) -> Refusal | None:
    for group in summary.tensors:
        if element_type(group.dtype) is None and group.dtype not in ("I64", "BOOL"):
            message = (
                f"Tensor {group.pattern} has element type {group.dtype}, but nothing says how the checkpoint "
                "is quantised."
            )
            return Refusal(Reason.UNSUPPORTED_QUANTIZATION, message, _HINT)
    return None


def _quantized(profile: ModelProfile, rules: QuantizationRules) -> ModelProfile:
    known: dict[tuple[int, tuple[Scheme | None, ...]], LayerProfile] = {}

    def layer_with_schemes(layer: LayerProfile, number: int) -> LayerProfile:
        schemes = tuple(_scheme_of(tensor, number, rules) for tensor in layer.tensors)
        _check_experts(layer.tensors, schemes)
        key = (id(layer), schemes)
        if key not in known:
            tensors = tuple(map(_with_scheme, layer.tensors, schemes))
            known[key] = replace(layer, tensors=complete_experts(tensors))
        return known[key]

    layers = tuple(layer_with_schemes(layer, number) for number, layer in enumerate(profile.layers))
    first_draft = len(profile.layers)
    return replace(
        profile,
        layers=layers,
        draft_layers=tuple(
            layer_with_schemes(layer, number)
            for number, layer in enumerate(profile.draft_layers, first_draft)
        ),
        outer_tensors=tuple(
            _with_scheme(tensor, _scheme_of(tensor, None, rules)) for tensor in profile.outer_tensors
        ),
        quantization=rules.method,
        kv_cache_dtype=rules.kv_cache_dtype,
    )


def _scheme_of(tensor: ParameterTensor, layer: int | None, rules: QuantizationRules) -> Scheme | None:
    if tensor.linear is None or tensor.linear.role == "router":
        return None
    return rules.scheme_of(module_names(tensor.linear, layer))


def _check_experts(tensors: tuple[ParameterTensor, ...], schemes: tuple[Scheme | None, ...]) -> None:
    found: dict[str, Scheme | None] = {}
    for tensor, scheme in zip(tensors, schemes, strict=True):
        if tensor.linear is not None and tensor.linear.role == "experts":
            module = tensor.linear.module
            if found.setdefault(module, scheme) != scheme:
                raise UnsupportedQuantization(
                    f"Projections of {module} have different layouts, which the engine refuses for experts."
                )


def complete_experts(tensors: tuple[ParameterTensor, ...]) -> tuple[ParameterTensor, ...]:
    """Tell the tensors of quantised experts about each other, since kernels pad them alike.

    Biases get the layout of their weights, and all learn whether the experts have a gate.
    """
    quantised = {
        tensor.name.removesuffix(".w13_weight"): tensor.linear
        for tensor in tensors
        if tensor.name.endswith(".w13_weight")
        and tensor.linear is not None
        and tensor.linear.scheme is not None
    }
    return tuple(_completed(tensor, quantised.get(tensor.name.rpartition(".")[0])) for tensor in tensors)


def _completed(tensor: ParameterTensor, first: Linear | None) -> ParameterTensor:
    if first is None:
        return tensor
    gated = len(first.out_sizes) > 1
    if tensor.linear is not None:
        return replace(tensor, linear=replace(tensor.linear, gated=gated))
    if not tensor.name.endswith("_bias"):
        return tensor
    return replace(tensor, linear=replace(first, role="expert-bias", gated=gated))


def _with_scheme(tensor: ParameterTensor, scheme: Scheme | None) -> ParameterTensor:
    if scheme is None or tensor.linear is None:
        return tensor
    linear: Linear = replace(tensor.linear, scheme=scheme)
    stored = tuple(packed for kept in tensor.stored for packed in stored_module(kept, scheme))
    return replace(tensor, linear=linear, stored=stored)
