"""Durations as users write them in a manifest: `50ms`, `2s`, `1m30s`, `2h`.

One grammar for the CRD, the parser and the documentation; nothing else in the project may parse durations
of the custom resource.
"""

from __future__ import annotations

import re
from typing import Final

DURATION_PATTERN: Final = "([0-9]+([.][0-9]+)?(ms|s|m|h))+"
"""Whole-string pattern, in the syntax that Go's RE2 and Python share."""

_WHOLE: Final = re.compile(DURATION_PATTERN, re.ASCII)
_PART: Final = re.compile("([0-9]+(?:[.][0-9]+)?)(ms|s|m|h)", re.ASCII)
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration_seconds(text: str) -> float:
    """Seconds of a duration such as `1m30s`; ValueError with a sentence if it is not one."""
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"'{text}' is not a duration; write for example 50ms, 2s, 1m30s or 2h")
    return sum(float(amount) * _SECONDS[unit] for amount, unit in _PART.findall(text))
