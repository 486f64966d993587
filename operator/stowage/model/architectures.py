"""The architectures that are sized, by the name that config.json gives: one reader each.

An architecture that is not in the table is refused; adding one means adding a row to its family's table, and
a family where its layers or tensors are of a new kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from stowage.model.anatomy import Anatomy
from stowage.model.families import dense
from stowage.model.profile import ModelProfile

Reader = Callable[[Mapping[str, Any]], Anatomy]
"""Reads a whole config.json; raises BadField for one that it cannot use."""

ARCHITECTURES: Final[Mapping[str, Reader]] = {**dense.READERS}
"""Every architecture that is sized."""


def stored_tensors(profile: ModelProfile) -> dict[str, tuple[int, ...]]:
    """Give name and shape of every tensor that a checkpoint of this model holds."""
    expected = {stored.name: stored.shape for tensor in profile.outer_tensors for stored in tensor.stored}
    for number, layer in enumerate(profile.layers):
        for tensor in layer.tensors:
            expected.update({stored.name.format(number): stored.shape for stored in tensor.stored})
    return expected
