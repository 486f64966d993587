"""What the headers say about quantisation: which modules are packed, and whether the block tells the truth.

Where the block does not list modules, the engine looks for tensors of packed element types (AWQ and GPTQ,
`maybe_update_config`). Layouts of 8 bits have the shape of the plain weight, so that only the element type
tells that a module was left out of quantisation, and that the engine would load it wrongly.
"""

from __future__ import annotations

from dataclasses import replace

from stowage.model.dtype import element_type
from stowage.model.profile import ModelProfile
from stowage.model.quantization.module_names import ModuleNames, Patterns, equals
from stowage.model.quantization.rules import QuantizationRules
from stowage.model.quantization.settings import UnsupportedQuantization
from stowage.model.tensors import Scheme
from stowage_runtime.contract import CheckpointSummary


def from_headers(rules: QuantizationRules, summary: CheckpointSummary) -> QuantizationRules:
    """Narrow rules to the modules whose tensors are packed; without any, the rules stay as they are."""
    packed = Patterns(
        (
            name.rpartition(".")[0]
            for group in summary.tensors
            if element_type(group.dtype) is None
            for name in group.names()
        ),
        equals,
    )
    if not packed:
        return rules

    def scheme_of(module: ModuleNames) -> Scheme | None:
        return rules.scheme_of(module) if packed.list_module(module) else None

    return replace(rules, scheme_of=scheme_of, listed=True)


def check_element_types(profile: ModelProfile, summary: CheckpointSummary) -> None:
    """Raise UnsupportedQuantization where a module that should be quantised is stored in floating point."""
    plain = {
        name for group in summary.tensors if element_type(group.dtype) is not None for name in group.names()
    }
    for number, layer in enumerate(profile.layers):
        for tensor in layer.tensors:
            for stored in tensor.stored:
                name = stored.name.format(number) if stored.dtype == "F8_E4M3" else ""
                if name in plain:
                    raise UnsupportedQuantization(
                        f"Tensor {name} is stored in floating point, although the quantisation block covers it."
                    )
