"""`stowage explain`: why this plan: every alternative with its cost or first failing reason, and every lever.

The same question as `stowage plan`, judged in full: every candidate has its forecast. Exit codes as there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from stowage.commands.bad_input import EXIT_DOES_NOT_FIT
from stowage.commands.plan import draw, plan_files, say_who_answered
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
from stowage.commands.plan_question import read_question
from stowage.planning.explain.report import explain_document, explain_report
from stowage.planning.plan import plan


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("explain")(explain_command)


def explain_command(  # noqa: PLR0913 - one parameter for each option
    manifest: ManifestOption = None,
    inventory: InventoryOption = None,
    model_dir: ModelDirOption = None,
    name: NameOption = None,
    prices: PricesOption = None,
    alternative: AlternativeOption = None,
    picture: PictureOption = None,
    estimator: EstimatorOption = EstimatorName.ROOFLINE,
    output: Annotated[Output, typer.Option("--output", "-o", help="How it is written.")] = Output.TABLE,
) -> None:
    """Explain a plan: ranked alternatives, what was rejected and why, and what each change alone would bring."""
    files = plan_files(manifest, inventory, model_dir, name, prices, alternative)
    question = read_question(replace(files, estimator=estimator), output, thorough=True)
    result = plan(question.request, question.inventory)
    say_who_answered(estimator, result)
    if output is Output.TABLE:
        typer.echo(explain_report(question.request, result))
    else:
        typer.echo(written(explain_document(question.request, result), output))
    draw(picture, question, result)
    if result.plan is None:
        raise typer.Exit(EXIT_DOES_NOT_FIT)
