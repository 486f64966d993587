"""The architectures that are sized, by the name that config.json gives: one reader each.

An architecture that is not in the table is refused; adding one means adding a row to its family's table, and
a family where its layers or tensors are of a new kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from stowage.model.anatomy import Anatomy
from stowage.model.families import (
    afmoe,
    bailing,
    classic,
    dbrx,
    deepseek_v4,
    dense,
    gemma,
    gemma3n,
    gemma4,
    gpt_oss,
    granite,
    granite_moe,
    hunyuan,
    hybrid,
    laguna,
    latent,
    llama4,
    longcat,
    mimo_v2,
    minicpm3,
    minimax_m3,
    moe,
    multimodal,
    nas,
    native,
    removed,
    step3,
    swiftkv,
    transformers_backend,
    whisper,
)
from stowage.model.profile import ModelProfile

Reader = Callable[[Mapping[str, Any]], Anatomy]
"""Reads a whole config.json; raises BadField for one that it cannot use."""

_TEXT: Final[Mapping[str, Reader]] = {
    **afmoe.READERS,
    **bailing.READERS,
    **classic.READERS,
    **dbrx.READERS,
    **deepseek_v4.READERS,
    **dense.READERS,
    **gemma.READERS,
    **gemma3n.READERS,
    **gemma4.READERS,
    **gpt_oss.READERS,
    **granite.READERS,
    **granite_moe.READERS,
    **hunyuan.READERS,
    **hybrid.READERS,
    **laguna.READERS,
    **latent.READERS,
    **llama4.READERS,
    **longcat.READERS,
    **minicpm3.READERS,
    **mimo_v2.READERS,
    **minimax_m3.READERS,
    **moe.READERS,
    **nas.READERS,
    **native.READERS,
    **removed.READERS,
    **step3.READERS,
    **swiftkv.READERS,
    **transformers_backend.READERS,
    **whisper.READERS,
}

ARCHITECTURES: Final[Mapping[str, Reader]] = {**_TEXT, **multimodal.readers(_TEXT)}
"""Every architecture that is sized; multimodal ones hold a language model that has a reader of its own."""


def stored_tensors(profile: ModelProfile) -> dict[str, tuple[int, ...]]:
    """Give name and shape of every tensor that a checkpoint of this model holds."""
    expected = {stored.name: stored.shape for tensor in profile.outer_tensors for stored in tensor.stored}
    for number, layer in enumerate(profile.layers):
        for tensor in layer.tensors:
            expected.update({stored.name.format(number): stored.shape for stored in tensor.stored})
    return expected
