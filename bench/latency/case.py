"""One measured run of a server under load, as a line of a cases file states it; None is what nobody wrote down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MEASURED = {"ttft_ms": "ttft_mean_ms", "tpot_ms": "tpot_mean_ms", "output_tok_s": "output_tok_s"}
"""Our name of a figure, and the column that holds what was measured."""


@dataclass(frozen=True)
class Case:
    """A row; columns are read by their names in the file."""

    row: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        return self.row.get(name)

    @property
    def identifier(self) -> str:
        """The row's id."""
        return str(self.row.get("id"))

    def positive(self, name: str) -> float | None:
        """Give a column that must be a positive number; None where it is unknown or nonsense."""
        value = self.row.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            return None
        return float(value)

    @property
    def measured(self) -> dict[str, float | None]:
        """Give what was measured, by our names."""
        return {name: self.positive(column) for name, column in MEASURED.items()}


def read_cases(path: Path) -> tuple[Case, ...]:
    """Read a JSON-lines file; raises ValueError naming the line that is not an object with an id."""
    cases = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        row = json.loads(line)
        if not isinstance(row, dict) or "id" not in row:
            raise ValueError(f"{path}, line {number}: a case is an object with an id")
        cases.append(Case(row))
    return tuple(cases)
