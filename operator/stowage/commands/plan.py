"""`stowage plan`: the plan of a manifest on an inventory file, without any cluster.

The same `plan()` as in the operator. Exit codes: 0 it fits, 1 it does not fit or is not supported, 2 bad input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from stowage.api.refusal import Refusal
from stowage.commands.bad_input import EXIT_DOES_NOT_FIT, bad_input
from stowage.commands.plan_compare import compare_document, compare_lines
from stowage.commands.plan_options import (
    AlternativeOption,
    EstimatorName,
    EstimatorOption,
    InventoryOption,
    ManifestOption,
    ModelDirOption,
    NameOption,
    PictureOption,
    PricesOption,
)
from stowage.commands.plan_output import Output, written
from stowage.commands.plan_picture import write_picture
from stowage.commands.plan_question import PlanFiles, PlanQuestion, read_question
from stowage.commands.plan_what_if import PlanWhatIf, answer_what_ifs, what_if_document, what_if_lines
from stowage.planning.explain import result_document
from stowage.planning.explain.table import plan_table
from stowage.planning.plan import PlanResult, plan


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("plan")(plan_command)


def plan_command(  # noqa: PLR0913 - one parameter for each option
    manifest: ManifestOption = None,
    inventory: InventoryOption = None,
    model_dir: ModelDirOption = None,
    name: NameOption = None,
    prices: PricesOption = None,
    alternative: AlternativeOption = None,
    what_if: Annotated[
        list[str] | None,
        typer.Option(
            "--what-if", help="Also answer with a change, as gpus=+8xH100 or concurrency=64; may be repeated."
        ),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--compare", metavar="A B", help="Compare two plans that -o json wrote, and nothing else."
        ),
    ] = None,
    picture: PictureOption = None,
    estimator: EstimatorOption = EstimatorName.ROOFLINE,
    output: Annotated[Output, typer.Option("--output", "-o", help="How the plan is written.")] = Output.TABLE,
) -> None:
    """Plan a manifest on an inventory: which GPUs, which settings, how fast, at what cost, and why not otherwise."""
    if compare is not None:
        _compare(compare, output)
        return
    files = plan_files(manifest, inventory, model_dir, name, prices, alternative)
    question = read_question(replace(files, estimator=estimator), output)
    result = plan(question.request, question.inventory)
    say_who_answered(estimator, result)
    answers = answer_what_ifs(question.request, question.inventory, what_if or ())
    if isinstance(answers, Refusal):
        bad_input(answers.sentence)
    typer.echo(_answer(question, result, answers, output))
    draw(picture, question, result)
    if result.plan is None:
        raise typer.Exit(EXIT_DOES_NOT_FIT)


def plan_files(
    manifest: str | None,
    inventory: str | None,
    model_dir: Path | None,
    name: str | None,
    prices: Path | None,
    alternative: Sequence[str] | None,
) -> PlanFiles:
    """Put the options together; ends the command where one that is needed is missing."""
    if manifest is None:
        bad_input("give the file with the LLMDeployment as -f FILE.")
    if inventory is None:
        bad_input("give the file with the cluster's nodes as --inventory FILE.")
    return PlanFiles(manifest, inventory, model_dir, name, prices, tuple(alternative or ()))


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
    try:
        write_picture(path, question.request.profile.source, result.plan)
    except OSError as problem:
        bad_input(f"--picture {path}: {problem.strerror or problem}; give a file that can be written.")


def _answer(question: PlanQuestion, result: PlanResult, answers: Sequence[PlanWhatIf], output: Output) -> str:
    if output is not Output.TABLE:
        document = result_document(result)
        if answers:
            document["whatIf"] = [what_if_document(answer) for answer in answers]
        return written(document, output)
    if answers:
        return "\n".join(what_if_lines(result, answers))
    return plan_table(question.request, result)


def _compare(paths: tuple[Path, Path], output: Output) -> None:
    if output is Output.TABLE:
        typer.echo("\n".join(compare_lines(*paths)))
    else:
        typer.echo(written(compare_document(*paths), output))
