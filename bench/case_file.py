"""Reading a cases file: one measured run a line; columns are read by name, None is what nobody wrote down."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

C = TypeVar("C")


@dataclass(frozen=True)
class Row:
    """What one line states."""

    row: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        return self.row.get(name)

    @property
    def identifier(self) -> str:
        """The row's id."""
        return str(self.row.get("id"))


def read_rows(path: Path, make: Callable[[Mapping[str, Any]], C]) -> tuple[C, ...]:
    """Read a JSON-lines file; raises ValueError naming the line that is not an object with an id."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: not JSON: {error}") from None
        if not isinstance(row, dict) or "id" not in row:
            raise ValueError(f"{path}, line {number}: a case is an object with an id")
        found.append(make(row))
    return tuple(found)
