"""From the options of `stowage plan` and `stowage explain` to what `plan()` is asked: request and inventory.

Ends the command with one sentence where a file cannot be used. Nothing is assumed here that the operator would not
assume: both ask the same question.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.api.support import unsupported_fields
from stowage.api.v1alpha1 import LLMDeployment, LLMDeploymentSpec
from stowage.api.v1alpha1.deployment import KIND, parse_deployment
from stowage.commands.bad_input import bad_input
from stowage.commands.inventory_file import read_inventory
from stowage.commands.model_argument import read_hub
from stowage.commands.output import Output
from stowage.commands.plan.options import EstimatorName, QuestionOptions
from stowage.commands.plan.output import refuse, refuse_fields
from stowage.commands.yaml_documents import read_document, read_objects
from stowage.feed.aiconfigurator_estimator import AiconfiguratorEstimator
from stowage.feed.models.local_checkpoint import read_folder
from stowage.hardware.inventory import Inventory
from stowage.model.config_json import read_profile
from stowage.model.profile import ModelProfile
from stowage.performance.estimator import Estimator
from stowage.planning.plan import PlanRequest
from stowage.planning.prices import Prices, default_prices, read_prices
from stowage.planning.search.lossy import LossyOption

_UNSUPPORTED: Final = frozenset(
    {Reason.NOT_SUPPORTED, Reason.UNSUPPORTED_ARCHITECTURE, Reason.UNSUPPORTED_QUANTIZATION}
)


@dataclass(frozen=True, slots=True)
class PlanQuestion:
    """What `plan()` is asked, and the deployment that it is asked for."""

    deployment: LLMDeployment
    request: PlanRequest
    inventory: Inventory


def read_question(options: QuestionOptions, *, thorough: bool = False) -> PlanQuestion:
    """Read everything; ends the command where something is missing, cannot be used or is not supported."""
    if options.filename is None:
        bad_input("give the file with the LLMDeployment as -f FILE.")
    if options.inventory is None:
        bad_input("give the file with the cluster's nodes as --inventory FILE.")
    deployment = _read_deployment(options.filename, options.name)
    spec, metadata = deployment.spec, deployment.metadata
    refused = unsupported_fields(spec)
    if refused:
        refuse_fields([each.message for each in refused], options.output)
    room = read_inventory(options.inventory, metadata.namespace, metadata.name)
    request = PlanRequest(
        spec=spec,
        profile=_read_model(deployment, options.model_dir, options.output),
        replicas=spec.replicas,
        prices=read_price_file(options.prices),
        alternatives=tuple(_alternatives(spec, options.alternative or ())),
        estimator=_estimator(options.estimator),
        thorough=thorough,
    )
    return PlanQuestion(deployment, request, room)


def _estimator(name: EstimatorName) -> Estimator | None:
    """Give the estimator that is asked for, None for the default; ends the command where it is not installed."""
    if name is EstimatorName.ROOFLINE:
        return None
    if find_spec("aiconfigurator_core") is None:
        bad_input(
            "--estimator aiconfigurator needs the package aiconfigurator-core; install stowage[estimator]."
        )
    return AiconfiguratorEstimator()


def read_price_file(path: Path | None) -> Prices:
    """Read `--prices`; the defaults without."""
    if path is None:
        return default_prices()
    found = read_prices(read_document(str(path)))
    return bad_input(f"{path}: {found.sentence}") if isinstance(found, Refusal) else found


def _read_deployment(path: str, name: str | None) -> LLMDeployment:
    documents = [each for each in read_objects(path) if each["kind"] == KIND]
    if not documents:
        bad_input(f"{path} holds no object of kind {KIND}; give a file with one.")
    names = [str((each.get("metadata") or {}).get("name")) for each in documents]
    chosen = [each for each, found in zip(documents, names, strict=True) if name in (None, found)]
    if len(chosen) != 1:
        holds = f"{len(chosen)} objects of kind {KIND}" if chosen else f"no {KIND}"
        wanted = f" named {name}" if name else ""
        advice = "rename all but one" if name and chosen else "choose one by --name"
        bad_input(f"{path} holds {holds}{wanted}; {advice} ({', '.join(dict.fromkeys(names))}).")
    deployment = parse_deployment(chosen[0])
    if isinstance(deployment, Refusal):
        bad_input(f"{path}: {deployment.sentence}")
    return deployment


def _read_model(deployment: LLMDeployment, model_dir: Path | None, output: Output) -> ModelProfile:
    model = deployment.spec.model
    if model_dir is not None:
        if not model_dir.is_dir():
            bad_input(f"--model-dir {model_dir} is not a folder; give one with a config.json.")
        summary: Any = read_folder(model_dir, model.source)
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
        refuse(profile, output)
    return bad_input(profile.sentence)


def _alternatives(spec: LLMDeploymentSpec, folders: Sequence[str]) -> Iterator[LossyOption]:
    """Read the checkpoints that the spec allows instead of its own."""
    allowed = {entry.source for entry in spec.precision.alternatives}
    found: dict[str, Path] = {}
    for text in folders:
        source, separator, folder = text.partition("=")
        if not separator or source not in allowed:
            bad_input(
                f"--alternative {text}: write SOURCE=FOLDER with a source of spec.precision.alternatives"
                f" ({', '.join(sorted(allowed)) or 'it lists none'})."
            )
        found[source] = Path(folder)
    for entry in spec.precision.alternatives:
        yield LossyOption(entry.source, _read_alternative(entry.source, found.get(entry.source)))


def _read_alternative(source: str, folder: Path | None) -> ModelProfile:
    if folder is None and not source.startswith("hf://"):
        bad_input(
            f"{source} can only be read in its cluster; give a folder as --alternative {source}=FOLDER."
        )
    summary = read_hub(source, None) if folder is None else read_folder(folder, source)
    profile = summary if isinstance(summary, Refusal) else read_profile(summary)
    if isinstance(profile, Refusal):
        bad_input(f"{source} (spec.precision.alternatives): {profile.sentence}")
    return profile
