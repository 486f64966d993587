"""`stowage inspect`: the compact summary of a checkpoint, as a ConfigMap or an air-gapped cluster can hold it."""

from __future__ import annotations

from typing import Annotated

import typer

from stowage.api.refusal import Refusal
from stowage.commands.bad_input import bad_input
from stowage.commands.model_argument import read_model


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("inspect")(inspect_command)


def inspect_command(
    source: Annotated[str, typer.Argument(help="Folder, organisation/name or hf://organisation/name.")],
    revision: Annotated[
        str | None, typer.Option("--revision", help="Branch, tag or commit; default: the main branch.")
    ] = None,
) -> None:
    """Print the checkpoint summary as one line of JSON: config.json, and every tensor's name, type and shape."""
    summary = read_model(source, revision)
    if isinstance(summary, Refusal):
        bad_input(f"{summary.reason.value}: {summary.sentence}")
    typer.echo(summary.to_json())
