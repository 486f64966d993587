"""`stowage explain`: why this plan: every alternative with its cost or first failing reason, and every lever.

The same question as `stowage plan`, judged in full: every candidate has its forecast. Exit codes as there.
"""

from __future__ import annotations

import typer

from stowage.commands.bad_input import EXIT_DOES_NOT_FIT
from stowage.commands.options_object import with_options
from stowage.commands.output import Output, terminal_columns, written
from stowage.commands.picture_file import picture_path
from stowage.commands.plan.command import draw, say_who_answered
from stowage.commands.plan.options import QuestionOptions
from stowage.commands.plan.question import read_question
from stowage.planning.explain.report import explain_document, explain_report
from stowage.planning.plan import plan


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("explain")(explain_command)


@with_options(QuestionOptions)
def explain_command(options: QuestionOptions) -> None:
    """Explain a plan: ranked alternatives, what was rejected and why, and what each change alone would bring.

    For example: stowage explain -f model.yaml --inventory nodes.yaml

    Exit codes: 0 fits, 1 does not fit or is not supported, 2 bad input.
    """
    path = picture_path(options.picture)
    question = read_question(options, thorough=True)
    result = plan(question.request, question.inventory)
    say_who_answered(options.estimator, result)
    draw(path, question, result)
    if options.output is Output.TABLE:
        typer.echo(explain_report(question.request, result, width=terminal_columns()))
    else:
        typer.echo(written(explain_document(question.request, result), options.output))
    if result.plan is None:
        raise typer.Exit(EXIT_DOES_NOT_FIT)
