"""How commands write: the forms of an answer, and how wide the terminal is.

Never colours or wraps what goes into a file or a pipe: there the same answer has the same bytes.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from enum import StrEnum
from shutil import get_terminal_size
from typing import Annotated, Any, Final

import typer
import yaml

PAGE_COLUMNS: Final = 118
"""The widest that tables are made, and how wide they are where there is no terminal."""

_LEAST_COLUMNS: Final = 60


class Output(StrEnum):
    """How the answer is written."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


OutputOption = Annotated[Output, typer.Option("--output", "-o", help="How the answer is written.")]


def written(document: Mapping[str, Any], output: Output) -> str:
    """Write a document for machines."""
    if output is Output.JSON:
        return json.dumps(document, indent=2, ensure_ascii=False)
    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1000)
    return text.rstrip()


def terminal_columns() -> int | None:
    """Give the columns of the terminal (COLUMNS wins), None where standard output is none."""
    if not os.environ.get("COLUMNS", "").isdigit() and not sys.stdout.isatty():
        return None
    return max(_LEAST_COLUMNS, get_terminal_size().columns)


def page_columns() -> int:
    """Give the columns that a page of text may take: those of the terminal, at most PAGE_COLUMNS."""
    return min(PAGE_COLUMNS, terminal_columns() or PAGE_COLUMNS)
