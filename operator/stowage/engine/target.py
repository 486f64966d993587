"""What the replicas should be made from: the record that goes onto the Deployment.

The launch specification and the pod template are rendered anew only when something that they are rendered from has
changed; otherwise the recorded ones are used again, byte for byte. The same holds for the agent's image in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stowage.api.v1alpha1 import LLMDeploymentSpec
from stowage.engine.inputs import rendering_inputs
from stowage.engine.record import InForce
from stowage.engine.situation import Situation
from stowage.planning.plan import Plan
from stowage.render.config_map import launch_config_map_name
from stowage.render.launch_spec import launch_spec
from stowage.render.pod_template import pod_template


def make_target(
    situation: Situation, spec: LLMDeploymentSpec, plan: Plan, status_plan: Mapping[str, Any]
) -> InForce:
    """The record for a spec and a plan, with the recorded rendering where that still applies."""
    old = situation.in_force
    if old is not None and rendering_inputs(old.spec, old.plan) == rendering_inputs(spec, plan):
        launch, template = old.launch, old.template
    else:
        options = situation.world.options
        launch = launch_spec(situation.resource, spec, plan, options).to_json()
        name = launch_config_map_name(situation.name, launch)
        template = pod_template(situation.resource, spec, plan, options, name)
    return InForce(
        spec=spec,
        plan=plan,
        status_plan=status_plan,
        launch=launch,
        template=template,
        surge=old.surge if old is not None else 0,
    )
