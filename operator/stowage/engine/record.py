"""The plan in force, as it is recorded on the Deployment.

Status is never an input. What has to survive a restart of the operator, a lost status or an upgrade is written in
one annotation of the workload object: the spec, the plan, the launch specification and the pod template.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from stowage.api.v1alpha1 import LLMDeploymentSpec
from stowage.planning.plan import Plan
from stowage.render import names


@dataclass(frozen=True, slots=True)
class InForce:
    """What the live replicas were made from.

    `inputs` and `rendering` are the digests of `stowage.engine.inputs`; `status_plan` is `status.plan` as it was
    when the plan was made; `launch` is the content of launch.json and `template` the rendered pod template.
    """

    inputs: str
    rendering: str
    spec: LLMDeploymentSpec
    plan: Plan
    status_plan: Mapping[str, Any]
    launch: str
    template: Mapping[str, Any]

    def to_dict(self, recorded_spec: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON form of the annotation."""
        return {
            "inputs": self.inputs,
            "rendering": self.rendering,
            "spec": recorded_spec,
            "plan": json.loads(self.plan.to_json()),
            "statusPlan": dict(self.status_plan),
            "launch": self.launch,
            "template": dict(self.template),
        }


def read_in_force(deployment: Mapping[str, Any] | None) -> InForce | None:
    """Read the record of a Deployment; None where there is none that can be read.

    Somebody may have removed or edited the annotation: then there is no plan in force and a new one is made.
    """
    if deployment is None:
        return None
    text = (deployment["metadata"].get("annotations") or {}).get(names.IN_FORCE_ANNOTATION)
    if not text:
        return None
    try:
        document = json.loads(text)
        return InForce(
            inputs=str(document["inputs"]),
            rendering=str(document["rendering"]),
            spec=LLMDeploymentSpec.model_validate(document["spec"]),
            plan=Plan.from_json(json.dumps(document["plan"])),
            status_plan=dict(document["statusPlan"]),
            launch=str(document["launch"]),
            template=dict(document["template"]),
        )
    except (KeyError, TypeError, ValueError, ValidationError):
        return None
