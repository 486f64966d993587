"""The command line: plans, ledgers and inspections without a cluster.

Only puts the commands together. Exit codes are the same for all of them: 0 fits, 1 does not fit or is not supported,
2 bad input.
"""

from __future__ import annotations

import typer

from stowage.commands import explain as explain_module
from stowage.commands import inspect as inspect_module
from stowage.commands import memory as memory_module
from stowage.commands import plan as plan_module

app = typer.Typer(
    name="stowage",
    help="Sizes, places and explains LLM deployments. Everything here works without a cluster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


for module in (plan_module, explain_module, memory_module, inspect_module):
    module.register(app)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
