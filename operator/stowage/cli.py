"""The command line: plans, ledgers and inspections without a cluster.

Only puts the commands together. Exit codes are the same for all of them: 0 fits, 1 does not fit or is not supported,
2 bad input.
"""

from __future__ import annotations

from typing import Annotated

import typer

from stowage import __version__
from stowage.commands import explain as explain_module
from stowage.commands import inspect as inspect_module
from stowage.commands.memory import command as memory_module
from stowage.commands.plan import command as plan_module
from stowage.memory.release.engine_version import newest_engine_version

app = typer.Typer(
    name="stowage",
    help="Sizes, places and explains LLM deployments. Everything here works without a cluster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"stowage {__version__}, knows vLLM up to {newest_engine_version()}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_tell_version, help="Print the version and end."),
    ] = False,
) -> None:
    """Sizes, places and explains LLM deployments. Everything here works without a cluster."""


for module in (plan_module, explain_module, memory_module, inspect_module):
    module.register(app)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
