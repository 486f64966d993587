"""Which layers look at a sliding window only, as the engine decides it from config.json.

Without `layer_types`, or where all of them slide, the window holds for every layer (it becomes the cache's
own, `arg_utils.py::create_engine_config`, 0.32.0); otherwise each layer goes by its type. Nothing here knows
an architecture: families say which pattern their class fills in where `layer_types` is absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stowage.model.config_fields import BadField, UnsupportedFeature, count

SLIDING: Final = "sliding_attention"
FULL: Final = "full_attention"


def layer_types(config: Mapping[str, Any], number: int) -> tuple[str, ...] | None:
    """Read the type of every layer; None where the field is absent."""
    stated = config.get("layer_types")
    if stated is None:
        return None
    if not isinstance(stated, list) or not all(isinstance(kind, str) for kind in stated):
        raise BadField("config.json has layer_types that is not a list of strings.")
    if len(stated) < number:
        raise BadField(
            f"config.json has layer_types with {len(stated)} entries; it needs one for each layer."
        )
    unknown = next((kind for kind in stated if kind not in (SLIDING, FULL)), None)
    if unknown is not None:
        raise UnsupportedFeature(
            f"config.json has a layer of type {unknown}, which this family does not have."
        )
    return tuple(stated[:number])


def every_nth_full(number: int, interval: int) -> tuple[str, ...]:
    """Give the usual pattern: each `interval`-th layer sees everything, the others slide."""
    return tuple(SLIDING if (index + 1) % interval else FULL for index in range(number))


def layer_windows(config: Mapping[str, Any], number: int) -> tuple[int | None, ...]:
    """Give the window of each of `number` layers in tokens, None where all tokens are kept."""
    types = layer_types(config, number)
    if config.get("sliding_window") in (None, 0):
        return (None,) * number
    window = count(config, "sliding_window")
    return tuple(
        window if types is None or kind == SLIDING else None for kind in types or (SLIDING,) * number
    )
