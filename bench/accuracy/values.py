"""Values as people write them: numbers with suffixes, dtypes by their short names, limits of images and videos.

The engine takes many spellings (`32k`, `0.9`, `half`), issues and logs have more. Everything here is about
spelling; what a value means for memory is none of it.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any, Final

_SUFFIXED: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kKmMgGtT])?(i?B)?")
_DECIMAL: Final = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_DTYPES: Final = {
    "half": "float16",
    "fp16": "float16",
    "bf16": "bfloat16",
    "float": "float32",
    "fp32": "float32",
}
_NOTHING: Final = frozenset(("", "none", "null", "no", "n/a", "-"))


def structure(text: Any) -> Any:
    """Turn text into a number, flag, list or mapping where it is one, written as Python or as JSON."""
    if not isinstance(text, str):
        return text
    stripped = text.strip()
    if stripped.lower() in ("true", "false"):
        return stripped.lower() == "true"
    for read in (ast.literal_eval, json.loads):
        try:
            return read(stripped)
        except (ValueError, SyntaxError, TypeError):
            continue
    return stripped.strip("'\"")


def whole(value: Any) -> int | None:
    """Read a whole number above zero; `32k` is 32,000 and `32K` is 32,768, as the engine reads them."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        return int(value) if value > 0 else None
    match = _SUFFIXED.fullmatch(str(value).strip().replace(",", "").replace("_", ""))
    if match is None:
        return None
    suffix = match[2] or ""
    binary = bool(suffix) and (suffix.isupper() or (match[3] or "").startswith("i"))
    unit = 1024 ** (1 + "kmgt".index(suffix.lower())) if binary else _DECIMAL.get(suffix, 1)
    return int(float(match[1]) * unit) or None


def share(value: Any) -> float | None:
    """Read a share of memory above 0 and up to 1, also written in percent; None for anything else."""
    if isinstance(value, str):
        value = structure(value.strip().removesuffix("%"))
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        return None
    number = float(value) / 100 if 1 < value <= 100 else float(value)
    return number if number <= 1 else None


def name(value: Any) -> str | None:
    """Read a name in lower case; words for nothing count as absent."""
    if not isinstance(value, str) or value.strip().lower() in _NOTHING:
        return None
    return value.strip().lower()


def dtype(value: Any) -> str:
    """Read the dtype that the model runs in; what is not one (a quantisation, say) counts as not stated."""
    word = (name(value) or "auto").removeprefix("torch.")
    word = _DTYPES.get(word, word)
    return word if word in ("auto", "float16", "bfloat16", "float32") else "auto"


def limits(value: Any) -> tuple[tuple[str, int], ...]:
    """Read how many images, videos and sounds a prompt may have; also as `image=4,video=0`."""
    if isinstance(value, str):
        pairs = (part.split("=") for part in value.split(",") if part.count("=") == 1)
        value = {key.strip(): structure(number) for key, number in pairs}
    if not isinstance(value, Mapping):
        return ()
    numbers = {
        str(kind): limit.get("count") if isinstance(limit, Mapping) else limit
        for kind, limit in value.items()
    }
    return tuple(sorted((kind, number) for kind, number in numbers.items() if type(number) is int))
