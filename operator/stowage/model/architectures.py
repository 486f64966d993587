"""The architectures that are sized, by the name that config.json gives: one row each.

A row says how layers are read from config.json and which tensors they have. An architecture that is not in
the table is refused; adding one means adding a row, and builders where its layers or tensors are of a new
kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from stowage.model.dense_tensors import dense_layer_tensors, dense_outer_tensors
from stowage.model.families import FAMILIES, DenseFamily, read_dense_layers
from stowage.model.profile import LayerProfile, ModelProfile
from stowage.model.tensors import ParameterTensor


@dataclass(frozen=True, slots=True)
class Architecture:
    """How one architecture is read and what it consists of.

    `read_layers` raises BadField for a config.json it cannot use. `layer_tensors` takes a layer and the
    hidden size and gives tensors whose names hold `{}` for the layer's number; `outer_tensors` gives the
    rest.
    """

    read_layers: Callable[[Mapping[str, Any]], tuple[LayerProfile, ...]]
    layer_tensors: Callable[[LayerProfile, int], tuple[ParameterTensor, ...]]
    outer_tensors: Callable[[ModelProfile], tuple[ParameterTensor, ...]]


def _dense(family: DenseFamily) -> Architecture:
    return Architecture(
        read_layers=partial(read_dense_layers, family=family),
        layer_tensors=partial(dense_layer_tensors, fused_checkpoint=family.fused_checkpoint),
        outer_tensors=dense_outer_tensors,
    )


ARCHITECTURES: Final[Mapping[str, Architecture]] = {name: _dense(family) for name, family in FAMILIES.items()}
"""Every architecture that is sized."""


def stored_tensors(profile: ModelProfile) -> dict[str, tuple[int, ...]]:
    """Give name and shape of every tensor that a checkpoint of this model holds."""
    architecture = ARCHITECTURES[profile.architecture]
    expected = {
        stored.name: stored.shape
        for tensor in architecture.outer_tensors(profile)
        for stored in tensor.stored
    }
    for number, layer in enumerate(profile.layers):
        for tensor in architecture.layer_tensors(layer, profile.hidden_size):
            expected.update({stored.name.format(number): stored.shape for stored in tensor.stored})
    return expected
