"""The data tables that age with vLLM: log lines and exit causes, one source per row.

They are JSON inside the package, because the agent must read them from a zipapp on Python versions without
tomllib. Rows that a version does not print are left out, so that an old phrase can never be read with a new
meaning.
"""

from __future__ import annotations

import json
import pkgutil
import re
from typing import Any

BYTES_PER_GIB = 1024**3

_Version = tuple[int, ...]


def version_tuple(version: str) -> _Version:
    """Return the leading numbers of a version: "0.32.0+cpu" gives (0, 32, 0)."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def table(name: str) -> list[dict[str, Any]]:
    """Read all rows of a table of the package; ``name`` is the file name without its suffix."""
    content = pkgutil.get_data(__package__, f"data/{name}.json")
    if content is None:
        raise FileNotFoundError(f"data/{name}.json is not in the package")
    rows: list[dict[str, Any]] = json.loads(content)["rows"]
    return rows


def rows_for(name: str, version: str) -> list[dict[str, Any]]:
    """Read the rows of a table that hold for one vLLM version: ``since`` ≤ version < ``before``."""
    wanted = version_tuple(version)
    return [
        row
        for row in table(name)
        if version_tuple(row.get("since") or "0") <= wanted
        and (row.get("before") is None or wanted < version_tuple(row["before"]))
    ]
