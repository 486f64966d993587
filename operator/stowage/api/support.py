"""Which parts of the API this version acts on.

A field that is part of the API but not acted on yet is refused with `NotSupported`, never ignored. The table
below is the only place that says so: a part that starts to act on a field removes its row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from stowage.api.v1alpha1 import LLMDeploymentSpec, ScalingMode

SUPPORTED_SCHEMES: Final = ("hf", "pvc")


@dataclass(frozen=True, slots=True)
class UnsupportedField:
    """A field that the spec sets and this version does not act on."""

    path: str
    value: str
    message: str


@dataclass(frozen=True, slots=True)
class _Row:
    """One row of the table: the field, how to read it, when it is asked for, and what to do instead."""

    path: str
    read: Callable[[LLMDeploymentSpec], Any]
    advice: str
    is_supported: Callable[[Any], bool] = lambda value: value is None


def _is_empty(value: Any) -> bool:
    return not value


_TABLE: Final = (
    _Row(
        "model.source",
        lambda spec: spec.model.source,
        "use a model from hf:// or pvc://",
        lambda source: source.partition("://")[0] in SUPPORTED_SCHEMES,
    ),
    _Row(
        "precision.alternatives",
        lambda spec: [
            each.source for each in spec.precision.alternatives if not each.source.startswith("hf://")
        ],
        "use checkpoints from hf://, which the operator can read by itself",
        _is_empty,
    ),
    _Row(
        "engine.loraAdapters",
        lambda spec: [adapter.name for adapter in spec.engine.lora_adapters],
        "remove it: the memory of LoRA adapters is not modelled yet",
        _is_empty,
    ),
    _Row(
        "engine.speculative",
        lambda spec: spec.engine.speculative and spec.engine.speculative.method,
        "remove it: the memory of speculative decoding is not modelled yet",
    ),
    _Row(
        "scaling.mode",
        lambda spec: spec.scaling.mode.value,
        "use External and point an HPA, KEDA or `kubectl scale` at the object",
        lambda mode: mode == ScalingMode.EXTERNAL,
    ),
    _Row(
        "recovery.enabled",
        lambda spec: spec.recovery.enabled,
        "remove it or set it to false: nothing is changed automatically after an out-of-memory exit yet",
        _is_empty,
    ),
    _Row("recovery.maxSteps", lambda spec: spec.recovery.max_steps, "remove it: there is no recovery yet"),
    _Row(
        "recovery.allow",
        lambda spec: list(spec.recovery.allow),
        "remove it: there is no recovery yet",
        _is_empty,
    ),
)


def _show(value: Any) -> str:
    """Write a value as it stands in a manifest."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return str(value)


def limited_fields() -> list[tuple[str, str]]:
    """List the fields with values that this version does not act on, each with what to do instead."""
    return [(row.path, row.advice) for row in _TABLE]


def unsupported_fields(spec: LLMDeploymentSpec) -> list[UnsupportedField]:
    """List what the spec asks for and this version does not act on, in the order of the fields."""
    found = []
    for row in _TABLE:
        value = row.read(spec)
        if row.is_supported(value):
            continue
        shown = _show(value)
        path = f"spec.{row.path}"
        message = f"{path} is {shown}, which this version does not support yet; {row.advice}."
        found.append(UnsupportedField(path=path, value=shown, message=message))
    return found
