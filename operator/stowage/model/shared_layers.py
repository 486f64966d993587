"""Changing layers without losing that they are the same: a model of 61 layers holds two or three different ones."""

from __future__ import annotations

from collections.abc import Callable

from stowage.model.profile import LayerProfile


def shared_layers(change: Callable[[LayerProfile], LayerProfile]) -> Callable[[LayerProfile], LayerProfile]:
    """Make a change that gives one and the same result for one and the same layer, so that it is made once."""
    changed: dict[int, tuple[LayerProfile, LayerProfile]] = {}

    def shared(layer: LayerProfile) -> LayerProfile:
        # The layer is kept beside its change, so that no later one gets its id.
        if id(layer) not in changed:
            changed[id(layer)] = layer, change(layer)
        return changed[id(layer)][1]

    return shared
