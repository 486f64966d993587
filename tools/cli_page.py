"""The text of docs/cli.md: every command of the command line with every option, from the declarations themselves.

Only the rows come from code; what goes with them is written here, once. `tools.generate_docs` writes the page.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import typer

from stowage.cli import app
from stowage.commands.memory.what_if import READERS as MEMORY_CHANGES
from stowage.commands.plan.what_if import READERS as PLAN_CHANGES

CLI_PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "cli.md"

_HEAD: Final = """<!-- Generated from operator/stowage/commands by `make crds`; edits here are overwritten. -->

# The command line

`stowage` works without a cluster; as `kubectl-stowage` on the PATH it is also `kubectl stowage`. Every command ends
with 0 where it fits, 1 where it does not fit or is not supported by this version, and 2 on input that cannot be used,
with one sentence on standard error that names the option or field, its value and what to do.

Text keeps within the columns of the terminal (`COLUMNS` wins). Into a file or a pipe, tables of `stowage plan` are 118
columns wide, those of `stowage explain` as wide as they need to be, and the same question has the same bytes. `-o json`
and `-o yaml` have every number for programs.

`HF_TOKEN` opens gated and private models, `HF_ENDPOINT` names another Hub.
"""

_CHANGES: Final = """
## What if

`--what-if NAME=VALUE` answers the same question with a change, beside the answer as asked; several changes with commas
between are one, and `--what-if` may be repeated. What is not stated follows the change, as the engine's defaults do.

| command | names |
| --- | --- |
"""


def render_cli() -> str:
    """Give the text of docs/cli.md."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    sections = [_section(name, command) for name, command in commands.items()]
    changes = [("stowage plan", PLAN_CHANGES), ("stowage memory", MEMORY_CHANGES)]
    rows = [f"| `{command}` | {_names(names)} |\n" for command, names in changes]
    return "".join([_HEAD, *sections, _CHANGES, *rows])


def _section(name: str, command: Any) -> str:
    first, *more = [part.strip() for part in command.help.split("\n\n")]
    example = next(part for part in more if part.startswith("For example: ")).removeprefix("For example: ")
    table = "".join(f"| {option} | {default} | {meaning} |\n" for option, default, meaning in _rows(command))
    head = "| option | default | meaning |\n| --- | --- | --- |\n"
    return f"\n## stowage {name}\n\n{first}\n\n```\n{example}\n```\n\n{head}{table}"


def _rows(command: Any) -> Iterator[tuple[str, str, str]]:
    for parameter in command.params:
        if parameter.name == "help":
            continue
        names = ", ".join(f"`{name}`" for name in parameter.opts)
        default = parameter.default
        if parameter.required:
            shown = "required"
        elif default in (None, False, ()):
            shown = ""
        else:
            shown = f"`{getattr(default, 'value', default)}`"
        yield names, shown, " ".join((parameter.help or "").replace("|", "\\|").split())


def _names(readers: Any) -> str:
    return ", ".join(f"`{name.replace('_', '-')}`" for name in readers)
