"""The LLMDeployment object, and reading one from a manifest or from the API server.

Reading never raises on what a user wrote: it gives the object or a refusal whose sentence names the field,
the value and what to do. The same rules run here as in the API server, so that the command line without a
cluster and the server agree.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final

from pydantic import ConfigDict, Field, ValidationError

from stowage.api.base import ApiModel, Rule, StatusModel, matches
from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.api.v1alpha1.spec import LLMDeploymentSpec
from stowage.api.v1alpha1.status import LLMDeploymentStatus

GROUP: Final = "stowage.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "LLMDeployment"
PLURAL: Final = "llmdeployments"
SINGULAR: Final = "llmdeployment"
SHORT_NAME: Final = "llmd"
CATEGORY: Final = "llm"
NAME_MAX_LENGTH: Final = 50

_NAME_PATTERN: Final = f"[a-z]([a-z0-9-]{{0,{NAME_MAX_LENGTH - 2}}}[a-z0-9])?"
_NAME_MESSAGE: Final = (
    f"metadata.name must be at most {NAME_MAX_LENGTH} lower case letters, digits and '-', begin with "
    f"a letter and not "
    "end with '-': Services and labels are named after it"
)
_NAME_FORM: Final = matches(_NAME_PATTERN, _NAME_MESSAGE)


def _name_holds(resource: LLMDeployment) -> bool:
    form = _NAME_FORM.holds
    return form is not None and form(resource.metadata.name)


class ObjectMeta(StatusModel):
    """The part of an object's metadata that Stowage reads."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(min_length=1)
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class LLMDeployment(ApiModel):
    """A model that Stowage sizes, places, launches, checks and scales. Only spec.model.source is required."""

    api_version: Annotated[str, Field(pattern=f"^{API_VERSION}$")] = API_VERSION
    kind: Annotated[str, Field(pattern=f"^{KIND}$")] = KIND
    metadata: ObjectMeta
    spec: LLMDeploymentSpec = Field(description="What to serve and under which conditions.")
    status: LLMDeploymentStatus | None = Field(None, description="What is true now; written by the operator.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=_NAME_FORM.cel.replace("self.", "self.metadata.name.", 1),
            message=_NAME_MESSAGE,
            holds=_name_holds,
        ),
    )


def parse_deployment(document: Any) -> LLMDeployment | Refusal:
    """Read an LLMDeployment from its JSON form; its status is read only as far as it is well-formed."""
    if not isinstance(document, Mapping):
        return Refusal(
            Reason.INVALID_SPEC, "The manifest is not an object with apiVersion, kind, metadata and spec."
        )
    try:
        return LLMDeployment.model_validate({**document, "status": _readable_status(document.get("status"))})
    except ValidationError as error:
        return Refusal(Reason.INVALID_SPEC, explain_errors(error))


def parse_spec(document: Any) -> LLMDeploymentSpec | Refusal:
    """Read only the spec."""
    try:
        return LLMDeploymentSpec.model_validate(document)
    except ValidationError as error:
        return Refusal(Reason.INVALID_SPEC, explain_errors(error, prefix="spec"))


def explain_errors(error: ValidationError, *, prefix: str = "", limit: int = 3) -> str:
    """Say in words what pydantic found: field, value and rule, for the first `limit` errors."""
    details = error.errors(include_url=False)
    sentences = [_explain_one(detail, prefix) for detail in details[:limit]]
    if len(details) > limit:
        sentences.append(f"And {len(details) - limit} more.")
    return " ".join(sentences)


def _explain_one(detail: Any, prefix: str) -> str:
    path = _path(detail["loc"], prefix)
    kind = detail["type"]
    if kind == "missing":
        return f"{path} is required; add it."
    if kind == "extra_forbidden":
        return (
            f"{path} is not a field of {KIND}; check its spelling (`kubectl explain llmd.spec --recursive`)."
        )
    value = detail["input"]
    message = detail["msg"][:1].lower() + detail["msg"][1:] if kind != "stowage_rule" else detail["msg"]
    if isinstance(value, (Mapping, ApiModel, list, tuple)):
        return f"{path}: {message}."
    return f"{path} is {json.dumps(value, default=str)}: {message}."


def _path(location: tuple[int | str, ...], prefix: str) -> str:
    path = prefix
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part not in _UNION_BRANCHES:
            path += f".{part}" if path else part
    return path or KIND


_UNION_BRANCHES: Final = frozenset({"int", "str", "bool", "float"})


def _readable_status(raw: Any) -> LLMDeploymentStatus | None:
    """Read a stored status; None when it is not in a form of this version, since it is never an input."""
    if raw is None:
        return None
    try:
        return LLMDeploymentStatus.model_validate(raw)
    except ValidationError:
        return None
