"""The options that planning commands share, declared once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class EstimatorName(StrEnum):
    """Who forecasts the chosen plan; the search itself always takes the roofline."""

    ROOFLINE = "roofline"
    AICONFIGURATOR = "aiconfigurator"


ManifestOption = Annotated[
    str | None, typer.Option("--filename", "-f", help="File with an LLMDeployment; - reads standard input.")
]
InventoryOption = Annotated[
    str | None,
    typer.Option(
        "--inventory", help="File with Nodes (and Pods, ResourceQuotas), as kubectl -o yaml writes it."
    ),
]
ModelDirOption = Annotated[
    Path | None,
    typer.Option("--model-dir", help="Folder with config.json (and safetensors files) instead of the Hub."),
]
NameOption = Annotated[
    str | None, typer.Option("--name", help="Which LLMDeployment, if the file has several.")
]
PricesOption = Annotated[
    Path | None,
    typer.Option("--prices", metavar="FILE", help="Prices: {currency: USD, perGpuHour: {NVIDIA-L4: 0.7}}."),
]
AlternativeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--alternative",
        metavar="SOURCE=FOLDER",
        help="Where a checkpoint of spec.precision.alternatives is, instead of the Hub; may be repeated.",
    ),
]
PictureOption = Annotated[
    Path | None,
    typer.Option("--picture", metavar="FILE", help="Also draw roofline, time and memory, as an SVG."),
]
EstimatorOption = Annotated[
    EstimatorName,
    typer.Option("--estimator", help="Who forecasts the plan; aiconfigurator needs the extra estimator."),
]
