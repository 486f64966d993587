"""Which release a case ran that names none but says when it was written.

A case whose note names a month ("June 2026 comment") ran the newest release there was by the end of that month, as
far as anybody can tell; that is nearer than today's. Nothing else of the note is looked at.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Final

from bench.accuracy.case import Case

_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH: Final = re.compile(rf"\b({'|'.join(_MONTHS)})[a-z]*\.? (20\d\d)\b", re.IGNORECASE)


def release_of_month(case: Case) -> tuple[str, str] | None:
    """Give the release and the month, None where the note names no month that the table reaches back to."""
    found = _MONTH.search(str(case.row.get("note") or ""))
    if found is None:
        return None
    month = f"{found[2]}-{_MONTHS.index(found[1].lower()) + 1:02}"
    older = [(day, release) for release, day in _released().items() if day[:7] <= month]
    return (max(older)[1], f"{found[1]} {found[2]}") if older else None


@cache
def _released() -> dict[str, str]:
    text = Path(__file__).with_name("releases.toml").read_text(encoding="utf-8")
    table: dict[str, str] = tomllib.loads(text)["released"]
    return table
