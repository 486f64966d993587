"""The plan in force, as it is recorded on the Deployment.

Status is never an input. What has to survive a restart of the operator, a lost status or an upgrade is written in
one annotation of the workload object: the spec, the plan, the launch specification and the pod template.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from stowage.api.v1alpha1 import LLMDeploymentSpec
from stowage.planning.plan import Plan
from stowage.render import names
from stowage.render.pod_template import is_whole, template_hash


@dataclass(frozen=True, slots=True)
class InForce:
    """What the live replicas were made from.

    `status_plan` is `status.plan` as it was when the plan was made; `launch` is the content of launch.json, `template`
    the rendered pod template, and `surge` how many replicas may be started before old ones stop.
    """

    spec: LLMDeploymentSpec
    plan: Plan
    status_plan: Mapping[str, Any]
    launch: str
    template: Mapping[str, Any]
    surge: int = 0

    @property
    def template_hash(self) -> str:
        """The hash that pods of this template carry."""
        return template_hash(self.template) or ""

    def to_dict(self, recorded_spec: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON form of the annotation."""
        return {
            "spec": recorded_spec,
            "plan": json.loads(self.plan.to_json()),
            "statusPlan": dict(self.status_plan),
            "launch": self.launch,
            "template": dict(self.template),
            "surge": self.surge,
        }


def read_in_force(deployment: Mapping[str, Any] | None) -> InForce | None:
    """Read the record of a Deployment; None where there is none that can be used.

    Somebody may have removed or edited the annotation: then there is no plan in force and a new one is made.
    """
    if deployment is None:
        return None
    text = (deployment["metadata"].get("annotations") or {}).get(names.IN_FORCE_ANNOTATION)
    if not text:
        return None
    try:
        document = json.loads(text)
        record = InForce(
            spec=_read_spec(document["spec"]),
            plan=Plan.from_json(json.dumps(document["plan"])),
            status_plan=dict(document["statusPlan"]),
            launch=str(document["launch"]),
            template=dict(document["template"]),
            surge=int(document["surge"]),
        )
        return record if is_whole(record.template) else None
    except (AttributeError, KeyError, TypeError, ValueError, ValidationError):
        return None


def _read_spec(document: dict[str, Any]) -> LLMDeploymentSpec:
    """Parse a recorded spec; fields that a newer version knew are left out, so that a rollback loses no record."""
    try:
        return LLMDeploymentSpec.model_validate(document)
    except ValidationError as error:
        unknown = [item["loc"] for item in error.errors() if item["type"] == "extra_forbidden"]
        if not unknown:
            raise
        known = copy.deepcopy(document)
        for path in unknown:
            _remove(known, path)
        return LLMDeploymentSpec.model_validate(known)


def _remove(document: Any, path: tuple[int | str, ...]) -> None:
    for part in path[:-1]:
        document = document[part]
    del document[path[-1]]
