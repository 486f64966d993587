"""The spec with the checkpoint that a plan really serves.

A plan may have chosen one of spec.precision.alternatives in place of spec.model.source. Everything that is rendered
for its pods reads the model from here, so that no place can forget it.
"""

from __future__ import annotations

from stowage.api.v1alpha1 import LLMDeploymentSpec
from stowage.planning.plan import Plan


def served_spec(spec: LLMDeploymentSpec, plan: Plan) -> LLMDeploymentSpec:
    """The same spec where the plan serves the spec's own checkpoint."""
    if plan.model_source is None or plan.model_source == spec.model.source:
        return spec
    # The revision is that of the spec's own repository; the plan carries the commit of the one it serves.
    served = spec.model.model_copy(update={"source": plan.model_source, "revision": None})
    return spec.model_copy(update={"model": served})
