"""Finding what a checkpoint says about its quantisation, in all places that can say it.

Order of the engine (transformers_utils/config.py, model_arch_config_convertor.py): `quantization_config` in
config.json, else the ModelOpt sidecar hf_quant_config.json, else `compression_config`, else the same two in
the nested text configuration. A checkpoint that says nothing but holds packed tensors is refused elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from stowage.model.config_fields import BadField, mapping, text_config, word
from stowage_runtime.contract import CheckpointSummary


@dataclass(frozen=True)
class QuantizationSettings:
    """One quantisation block: the method by its common name, its fields, and where it was found."""

    method: str
    fields: Mapping[str, Any]
    place: str


class UnsupportedQuantization(ValueError):
    """A layout that is not sized, as a sentence for people; it never leaves this package."""


def find_settings(summary: CheckpointSummary) -> QuantizationSettings | None:
    """Find the block that the engine would use; None where the checkpoint declares nothing."""
    for place, fields in _blocks(summary):
        if fields:
            return QuantizationSettings(_method(fields, place), fields, place)
    return None


def inner_fields(settings: QuantizationSettings) -> Mapping[str, Any]:
    """Give the fields of a ModelOpt block, which older exports nest under `quantization`."""
    return mapping(settings.fields, "quantization") or settings.fields


def names(fields: Mapping[str, Any], *keys: str) -> tuple[str, ...]:
    """Read a list of module names or patterns under the first key that holds one; null counts as absent."""
    for key in keys:
        value = fields.get(key)
        if value is None:
            continue
        flat = tuple(_flatten(value)) if isinstance(value, list) else (value,)
        if not all(isinstance(name, str) for name in flat):
            raise BadField(f"The quantisation block says {key}: {value!r}; it must be a list of strings.")
        if flat:
            return flat
    return ()


def _flatten(values: Iterable[Any]) -> Iterable[Any]:
    for value in values:
        if isinstance(value, list):
            yield from _flatten(value)
        else:
            yield value


def _blocks(summary: CheckpointSummary) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    config, text = summary.config, text_config(summary.config)
    return (
        ("quantization_config in config.json", mapping(config, "quantization_config")),
        ("hf_quant_config.json", summary.quantization or {}),
        ("compression_config in config.json", mapping(config, "compression_config")),
        ("quantization_config of the text model", mapping(text, "quantization_config")),
        ("compression_config of the text model", mapping(text, "compression_config")),
    )


def _method(fields: Mapping[str, Any], place: str) -> str:
    method = (word(fields, "quant_method") or "").lower().replace("compressed_tensors", "compressed-tensors")
    if method:
        return method
    producer = word(mapping(fields, "producer"), "name")
    inner = mapping(fields, "quantization")
    if producer == "modelopt" or "quant_algo" in inner or "quant_algo" in fields:
        return "modelopt"
    if "config_groups" in fields:
        return "compressed-tensors"
    raise UnsupportedQuantization(f"The checkpoint is quantised ({place}), but names no method.")
