"""One measured run of a server under load, as a line of a cases file states it; None is what nobody wrote down."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.case_file import Row, read_rows

MEASURED = {"ttft_ms": "ttft_mean_ms", "tpot_ms": "tpot_mean_ms", "output_tok_s": "output_tok_s"}
"""Our name of a figure, and the column that holds what was measured."""


@dataclass(frozen=True)
class Case(Row):
    """A row; columns are read by their names in the file."""

    def positive(self, name: str) -> float | None:
        """Give a column that must be a positive number; None where it is unknown or nonsense."""
        value = self.row.get(name)
        if isinstance(value, str):
            value = _number(value)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            return None
        return float(value)

    @property
    def measured(self) -> dict[str, float | None]:
        """Give what was measured, by our names."""
        return {name: self.positive(column) for name, column in MEASURED.items()}


def read_cases(path: Path) -> tuple[Case, ...]:
    """Read a cases file; raises ValueError naming the line that cannot be read."""
    return read_rows(path, Case)


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None
