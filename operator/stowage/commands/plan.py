"""`stowage plan`: the plan of a manifest on an inventory file, without any cluster.

The same `plan()` as in the operator. Exit codes: 0 it fits, 1 it does not fit or is not supported, 2 bad input.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer
import yaml

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.api.support import unsupported_fields
from stowage.api.v1alpha1 import LLMDeployment
from stowage.api.v1alpha1.deployment import KIND, parse_deployment
from stowage.commands.bad_input import EXIT_DOES_NOT_FIT, bad_input
from stowage.commands.inventory_file import read_inventory
from stowage.commands.model_argument import read_hub
from stowage.commands.yaml_documents import read_objects
from stowage.feed.local_checkpoint import read_folder
from stowage.model.config_json import read_profile
from stowage.model.profile import ModelProfile
from stowage.planning.explain import result_document
from stowage.planning.plan import PlanRequest, PlanResult, plan
from stowage.planning.table import plan_table

_UNSUPPORTED: Final = frozenset(
    {Reason.NOT_SUPPORTED, Reason.UNSUPPORTED_ARCHITECTURE, Reason.UNSUPPORTED_QUANTIZATION}
)


class Output(StrEnum):
    """How the plan is written."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("plan")(plan_command)


def plan_command(
    manifest: Annotated[
        str, typer.Option("--filename", "-f", help="File with an LLMDeployment; - reads standard input.")
    ],
    inventory: Annotated[
        str,
        typer.Option(
            "--inventory", help="File with Nodes (and Pods, ResourceQuotas), as kubectl -o yaml writes it."
        ),
    ],
    model_dir: Annotated[
        Path | None,
        typer.Option(
            "--model-dir", help="Folder with config.json (and safetensors files) instead of the Hub."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Which LLMDeployment, if the file has several.")
    ] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="How the plan is written.")] = Output.TABLE,
) -> None:
    """Plan a manifest on an inventory: which GPUs, which settings, what fits and why the rest does not."""
    deployment = _read_deployment(manifest, name)
    spec, metadata = deployment.spec, deployment.metadata
    refused = unsupported_fields(spec)
    if refused:
        _refuse_fields([each.message for each in refused], output)
    room = read_inventory(inventory, metadata.namespace, metadata.name)
    request = PlanRequest(spec, _read_model(deployment, model_dir, output), spec.replicas)
    result = plan(request, room)
    typer.echo(plan_table(request, result) if output is Output.TABLE else _written(result, output))
    if result.plan is None:
        raise typer.Exit(EXIT_DOES_NOT_FIT)


def _read_deployment(path: str, name: str | None) -> LLMDeployment:
    documents = [each for each in read_objects(path) if each["kind"] == KIND]
    if name is not None:
        documents = [each for each in documents if (each.get("metadata") or {}).get("name") == name]
    if len(documents) != 1:
        found = f"{len(documents)} objects" if documents else "no object"
        wanted = f" named {name}" if name else ""
        bad_input(f"{path} holds {found} of kind {KIND}{wanted}; name one of the file's by --name.")
    deployment = parse_deployment(documents[0])
    if isinstance(deployment, Refusal):
        bad_input(f"{path}: {deployment.sentence}")
    return deployment


def _read_model(deployment: LLMDeployment, model_dir: Path | None, output: Output) -> ModelProfile:
    model = deployment.spec.model
    if model_dir is not None:
        summary = read_folder(model_dir, model.source)
    elif model.scheme == "hf":
        summary = read_hub(model.source, model.revision)
    else:
        bad_input(
            f"{model.source} can only be read in its cluster; give a folder with its config.json as --model-dir."
        )
    profile = summary if isinstance(summary, Refusal) else read_profile(summary)
    if not isinstance(profile, Refusal):
        return profile
    if profile.reason in _UNSUPPORTED:
        _refuse(profile, output)
    return bad_input(profile.sentence)


def _refuse_fields(sentences: Sequence[str], output: Output) -> NoReturn:
    """Refuse fields that are not acted on: a line each for people, one message for programs."""
    if output is not Output.TABLE or len(sentences) == 1:
        _refuse(Refusal(Reason.NOT_SUPPORTED, " ".join(sentences)), output)
    typer.echo(f"Refused    {Reason.NOT_SUPPORTED.value}: {len(sentences)} fields of the manifest.")
    for sentence in sentences:
        typer.echo(f"  - {sentence}")
    raise typer.Exit(EXIT_DOES_NOT_FIT)


def _refuse(refusal: Refusal, output: Output) -> NoReturn:
    """Print a refusal that came before any planning, in the form that was asked for, and end with exit code 1."""
    if output is Output.TABLE:
        typer.echo(f"Refused    {refusal.reason.value}: {refusal.sentence}")
    else:
        typer.echo(_written(PlanResult(None, refusal), output))
    raise typer.Exit(EXIT_DOES_NOT_FIT)


def _written(result: PlanResult, output: Output) -> str:
    document: dict[str, Any] = result_document(result)
    if output is Output.JSON:
        return json.dumps(document, indent=2, ensure_ascii=False)
    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1000)
    return text.rstrip()
