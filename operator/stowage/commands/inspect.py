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
    """Print the checkpoint summary as one line of JSON: config.json, and every tensor's name, type and shape.

    For example: stowage inspect hf://Qwen/Qwen3-8B > checkpoint.json

    Exit codes: 0 done, 2 bad input.
    """
    summary = read_model(source, revision)
    if isinstance(summary, Refusal):
        bad_input(f"{summary.reason.value}: {summary.sentence}")
    if not summary.tensors:
        note = (
            "no safetensors headers were found; the summary has config.json alone, which sizes most models."
        )
        typer.echo(f"stowage: {note}", err=True)
    typer.echo(summary.to_json())
