"""The precision of a plan in one word: the format of the weights as the checkpoint stores them.

A quantised checkpoint is called by the format that most of its elements have; a plain one by the dtype that it
runs in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from math import prod
from typing import Final

from stowage.model.profile import ModelProfile

_SHORT: Final[Mapping[str, str]] = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


def precision_words(profile: ModelProfile, dtype: str) -> str:
    """Give the word that people use, as `bf16`, `fp8`, `int4` or `nvfp4`."""
    return _stored_format(profile) or _SHORT.get(dtype, dtype)


@lru_cache(maxsize=256)
def _stored_format(profile: ModelProfile) -> str | None:
    elements: Counter[str] = Counter()
    for layer, number in Counter(profile.layers).items():
        for tensor in layer.tensors:
            if tensor.linear is not None and tensor.linear.scheme is not None:
                elements[tensor.linear.scheme.weight] += number * prod(tensor.shape)
    return max(elements, key=lambda name: (elements[name], name)) if elements else None
