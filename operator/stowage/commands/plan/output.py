"""Refusals of planning commands that come before any plan, in the form that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import typer

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.commands.bad_input import EXIT_DOES_NOT_FIT
from stowage.commands.output import Output, written
from stowage.planning.explain import result_document
from stowage.planning.plan import PlanResult


def refuse(refusal: Refusal, output: Output) -> NoReturn:
    """Print a refusal that came before any planning, in the form that was asked for, and end with exit code 1."""
    if output is Output.TABLE:
        typer.echo(f"Refused    {refusal.reason.value}: {refusal.sentence}")
    else:
        typer.echo(written(result_document(PlanResult(None, refusal)), output))
    raise typer.Exit(EXIT_DOES_NOT_FIT)


def refuse_fields(sentences: Sequence[str], output: Output) -> NoReturn:
    """Refuse fields that are not acted on: a line each for people, one message for programs."""
    if output is not Output.TABLE or len(sentences) == 1:
        refuse(Refusal(Reason.NOT_SUPPORTED, " ".join(sentences)), output)
    typer.echo(f"Refused    {Reason.NOT_SUPPORTED.value}: {len(sentences)} fields of the manifest.")
    for sentence in sentences:
        typer.echo(f"  - {sentence}")
    raise typer.Exit(EXIT_DOES_NOT_FIT)
