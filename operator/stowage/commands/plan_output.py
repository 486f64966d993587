"""How planning commands write: the form that was asked for, and refusals that come before any plan."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NoReturn

import typer
import yaml

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.commands.bad_input import EXIT_DOES_NOT_FIT
from stowage.planning.explain import result_document
from stowage.planning.plan import PlanResult


class Output(StrEnum):
    """How the answer is written."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def written(document: Mapping[str, Any], output: Output) -> str:
    """Write a document for machines."""
    if output is Output.JSON:
        return json.dumps(document, indent=2, ensure_ascii=False)
    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1000)
    return text.rstrip()


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
