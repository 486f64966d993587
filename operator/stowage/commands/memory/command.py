"""`stowage memory`: the memory ledger of one given shape, without any cluster and without any plan.

Exit codes: 0 it fits, 1 it does not fit or is not supported yet (never an approximate number), 2 bad input.
"""

from __future__ import annotations

from typing import Final, NoReturn, TypeVar

import typer
from rich.console import Console

from stowage.api.reasons import Reason
from stowage.api.refusal import Refusal
from stowage.commands.bad_input import EXIT_DOES_NOT_FIT, bad_input
from stowage.commands.memory.document import ledger_document, refusal_document
from stowage.commands.memory.options import MemoryOptions
from stowage.commands.memory.picture import picture
from stowage.commands.memory.question import MemoryQuestion, read_question
from stowage.commands.memory.table import print_ledger
from stowage.commands.memory.what_if import WhatIf, answer_what_ifs, what_if_document, what_if_lines
from stowage.commands.options_object import with_options
from stowage.commands.output import Output, page_columns, terminal_columns, written
from stowage.commands.picture_file import picture_path, write_picture
from stowage.memory.budget import rank_ledgers, tightest
from stowage.memory.ledger import Ledger

T = TypeVar("T")

_BAD_INPUT: Final = frozenset(
    {
        Reason.INVALID_SPEC,
        Reason.PIN_CONFLICT,
        Reason.INVALID_MODEL_CONFIG,
        Reason.INVALID_CHECKPOINT,
        Reason.MODEL_NOT_FOUND,
        Reason.REVISION_NOT_FOUND,
        Reason.MODEL_ACCESS_DENIED,
        Reason.HUB_UNREACHABLE,
        Reason.HUB_RATE_LIMITED,
        Reason.UNKNOWN_GPU,
        Reason.UNSUPPORTED_ENGINE_VERSION,
    }
)


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("memory")(memory_command)


@with_options(MemoryOptions)
def memory_command(options: MemoryOptions) -> None:
    """Show what one rank of this shape holds: weights, KV cache, activations, CUDA graphs and the rest.

    For example: stowage memory --model Qwen/Qwen3-8B --gpu NVIDIA-L4 --what-if kv-cache-dtype=fp8

    Exit codes: 0 fits, 1 does not fit or is not supported, 2 bad input.
    """
    path, output = picture_path(options.picture), options.output
    question = _accepted(read_question(options), output)
    changes = _accepted(answer_what_ifs(question, options), output)
    ledgers = _accepted(
        rank_ledgers(question.profile, question.shape, question.device, question.version), output
    )
    if path is not None:
        write_picture(path, question.title, picture(question, ledgers))
    if output is Output.TABLE:
        _print_table(question, ledgers, changes)
    else:
        document = ledger_document(question, tightest(ledgers))
        document["what_if"] = [what_if_document(change) for change in changes]
        typer.echo(written(document, output))
    if tightest(ledgers).verdict == "DoesNotFit":
        raise typer.Exit(EXIT_DOES_NOT_FIT)


def _print_table(question: MemoryQuestion, ledgers: tuple[Ledger, ...], changes: tuple[WhatIf, ...]) -> None:
    width = terminal_columns()
    print_ledger(Console(highlight=False, width=page_columns(), soft_wrap=width is None), question, ledgers)
    if changes:
        typer.echo("\n".join(("", *what_if_lines(question, changes, width))))


def _accepted(found: T | Refusal, output: Output) -> T:
    return _refuse(found, output) if isinstance(found, Refusal) else found


def _refuse(refusal: Refusal, output: Output) -> NoReturn:
    if refusal.reason in _BAD_INPUT:
        bad_input(f"{refusal.reason.value}: {refusal.sentence}")
    if output is Output.TABLE:
        typer.echo(f"{refusal.reason.value}: {refusal.sentence}")
    else:
        typer.echo(written(refusal_document(refusal), output))
    raise typer.Exit(EXIT_DOES_NOT_FIT)
