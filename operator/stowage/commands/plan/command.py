"""`stowage plan`: the plan of a manifest on an inventory file, without any cluster.

The same `plan()` as in the operator. Exit codes: 0 it fits, 1 it does not fit or is not supported, 2 bad input.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from stowage.api.refusal import Refusal
from stowage.commands.bad_input import EXIT_DOES_NOT_FIT, bad_input
from stowage.commands.options_object import with_options
from stowage.commands.output import Output, page_columns, terminal_columns, written
from stowage.commands.picture_file import picture_path, write_picture
from stowage.commands.plan.compare import compare_document, compare_lines
from stowage.commands.plan.options import EstimatorName, PlanOptions
from stowage.commands.plan.picture import picture
from stowage.commands.plan.question import PlanQuestion, read_question
from stowage.commands.plan.what_if import PlanWhatIf, answer_what_ifs, what_if_document, what_if_lines
from stowage.planning.explain import result_document
from stowage.planning.explain.table import plan_table
from stowage.planning.plan import PlanResult, plan


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("plan")(plan_command)


@with_options(PlanOptions)
def plan_command(options: PlanOptions) -> None:
    """Plan a manifest on an inventory: which GPUs, which settings, how fast, at what cost, and why not otherwise.

    For example: stowage plan -f model.yaml --inventory nodes.yaml --what-if gpus=+8xH100

    Exit codes: 0 fits, 1 does not fit or is not supported, 2 bad input.
    """
    if options.compare is not None:
        _compare(options.compare, options.output)
        return
    path = picture_path(options.picture)
    question = read_question(options)
    result = plan(question.request, question.inventory)
    answers = answer_what_ifs(question.request, question.inventory, options.what_if or ())
    if isinstance(answers, Refusal):
        bad_input(answers.sentence)
    say_who_answered(options.estimator, result)
    draw(path, question, result)
    typer.echo(_answer(question, result, answers, options.output))
    if result.plan is None:
        raise typer.Exit(EXIT_DOES_NOT_FIT)


def say_who_answered(asked: EstimatorName, result: PlanResult) -> None:
    """Say on standard error where the roofline had to answer in place of the estimator that was asked for."""
    forecast = None if result.plan is None else result.plan.forecast
    if forecast is not None and asked is not EstimatorName.ROOFLINE and forecast.answered_by != asked.value:
        typer.echo(
            f"stowage: {asked.value} does not cover this plan; the forecast is the roofline's.", err=True
        )


def draw(path: Path | None, question: PlanQuestion, result: PlanResult) -> None:
    """Draw the plan where a picture is asked for; ends the command where it cannot be written."""
    if path is None:
        return
    if result.plan is None:
        typer.echo(f"stowage: there is no plan to draw, so {path} is not written.", err=True)
        return
    title = question.request.profile.source
    write_picture(path, title, picture(title, result.plan))


def _answer(question: PlanQuestion, result: PlanResult, answers: Sequence[PlanWhatIf], output: Output) -> str:
    if output is not Output.TABLE:
        document = result_document(result)
        if answers:
            document["whatIf"] = [what_if_document(answer) for answer in answers]
        return written(document, output)
    if answers:
        return "\n".join(what_if_lines(result, answers, terminal_columns()))
    return plan_table(question.request, result, width=page_columns())


def _compare(paths: tuple[Path, Path], output: Output) -> None:
    if output is Output.TABLE:
        typer.echo("\n".join(compare_lines(*paths, terminal_columns())))
    else:
        typer.echo(written(compare_document(*paths), output))
