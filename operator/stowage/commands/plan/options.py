"""The options of planning commands, declared once: what both take, and what only `stowage plan` takes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from stowage.commands.output import Output, OutputOption


class EstimatorName(StrEnum):
    """Who forecasts the chosen plan; the search itself always takes the roofline."""

    ROOFLINE = "roofline"
    AICONFIGURATOR = "aiconfigurator"


@dataclass(frozen=True, kw_only=True)
class QuestionOptions:
    """Where the question is, and how it is answered; None where nothing was said."""

    filename: Annotated[
        str | None,
        typer.Option("--filename", "-f", help="File with an LLMDeployment; - reads standard input."),
    ] = None
    inventory: Annotated[
        str | None,
        typer.Option(help="File with Nodes (and Pods, ResourceQuotas), as kubectl -o yaml writes it."),
    ] = None
    model_dir: Annotated[
        Path | None,
        typer.Option(help="Folder with config.json (and safetensors files) instead of the Hub."),
    ] = None
    name: Annotated[str | None, typer.Option(help="Which LLMDeployment, if the file has several.")] = None
    prices: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Prices: {currency: USD, perGpuHour: {NVIDIA-L4: 0.7}}."),
    ] = None
    alternative: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE=FOLDER",
            help="Where a checkpoint of spec.precision.alternatives is, instead of the Hub; may be repeated.",
        ),
    ] = None
    picture: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also draw roofline, time and memory, as FILE.svg or FILE.html."),
    ] = None
    estimator: Annotated[
        EstimatorName,
        typer.Option(help="Who forecasts the plan; aiconfigurator needs the extra estimator."),
    ] = EstimatorName.ROOFLINE
    output: OutputOption = Output.TABLE


@dataclass(frozen=True, kw_only=True)
class PlanOptions(QuestionOptions):
    """The options of `stowage plan`."""

    what_if: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Also answer with a change, as gpus=+8xH100 or concurrency=64,context=65536; may be repeated.",
        ),
    ] = None
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A B", help="Compare two plans that -o json wrote, and nothing else."),
    ] = None
