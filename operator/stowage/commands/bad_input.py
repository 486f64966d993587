"""How commands end on input that they cannot use: one sentence on standard error, never a traceback."""

from __future__ import annotations

from typing import NoReturn

import typer

EXIT_FITS = 0
EXIT_DOES_NOT_FIT = 1
EXIT_BAD_INPUT = 2


def bad_input(sentence: str) -> NoReturn:
    """End the command with exit code 2 and one sentence that says what to do."""
    typer.echo(f"stowage: {sentence}", err=True)
    raise typer.Exit(EXIT_BAD_INPUT)
