"""Kubernetes quantities as users write them in a manifest: `20Gi`, `1500m`, `2e9`, `4`.

Exact: no float is involved, so a pinned number of bytes stays that number. Nothing else in the project may
parse quantities of the custom resource.
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal
from typing import Final

QUANTITY_PATTERN: Final = (
    "([0-9]+([.][0-9]*)?|[.][0-9]+)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]{1,2})?"
)
"""Whole-string pattern, in the syntax that Go's RE2 and Python share."""

_PARTS: Final = re.compile("([0-9.]+)(.*)", re.ASCII)
_WHOLE: Final = re.compile(QUANTITY_PATTERN, re.ASCII)
_DECIMAL_SUFFIXES: Final = {suffix: Decimal(1000) ** power for power, suffix in enumerate(" kMGTPE")}
_BINARY_SUFFIXES: Final = {f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate(" KMGTPE")}
_SUFFIXES: Final = {**_DECIMAL_SUFFIXES, **_BINARY_SUFFIXES, "": Decimal(1), "m": Decimal(1) / 1000}


def parse_quantity(value: int | str) -> Decimal:
    """Give the exact value of a quantity; ValueError with a sentence if it is not one."""
    text = str(value)
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"'{text}' is not a quantity; write for example 20Gi, 1500m or 4")
    parts = _PARTS.fullmatch(text)
    if parts is None:
        raise AssertionError(text)
    number, suffix = parts.groups()
    if suffix[:1] in ("e", "E") and len(suffix) > 1 and not suffix.endswith("i"):
        return Decimal(number) * Decimal(10) ** int(suffix[1:])
    return Decimal(number) * _SUFFIXES[suffix]


def parse_quantity_bytes(value: int | str) -> int:
    """Whole bytes of a quantity such as `20Gi`, rounded up as Kubernetes does."""
    return int(parse_quantity(value).to_integral_value(rounding=ROUND_CEILING))
