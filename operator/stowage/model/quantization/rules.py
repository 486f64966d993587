"""What a reader of one quantisation method gives back: the method, and a scheme for each module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stowage.model.quantization.module_names import ModuleNames
from stowage.model.tensors import Scheme


@dataclass(frozen=True)
class QuantizationRules:
    """How a checkpoint is quantised.

    `method` is the engine's name of the method, `scheme_of` gives the layout of a module (None: plain
    floating point), `kv_cache_dtype` what `--kv-cache-dtype auto` becomes. `listed`: the block itself says
    which modules are quantised; where it does not, the engine looks into the headers.
    """

    method: str
    scheme_of: Callable[[ModuleNames], Scheme | None]
    kv_cache_dtype: str | None = None
    listed: bool = True
