"""Which parts of a spec a plan depends on, and which a pod template depends on.

A plan in force is kept as long as its inputs are the same, so scaling, a different rollout strategy or another pod
label never causes a new plan. A template is kept as long as nothing it is rendered from has changed, so that an
operator upgrade restarts no pod. Both sides of such a comparison are digested by the same code, from the recorded spec
and from the current one: a digest that another version wrote down would differ for no reason.
"""

from __future__ import annotations

from typing import Any

from stowage.api.v1alpha1 import LLMDeploymentSpec
from stowage.planning.plan import Plan
from stowage.render.canonical import digest

_NOT_PLANNED = frozenset({"replicas", "rollout", "mode", "scaling", "recovery", "runtime"})
_RUNTIME_PLANNED = frozenset({"image", "resources"})
_RENDERED = ("model", "runtime")


def recorded_spec(spec: LLMDeploymentSpec) -> dict[str, Any]:
    """The spec as it is recorded: everything but the number of replicas, which always comes from the live object."""
    document = spec.to_dict()
    document.pop("replicas", None)
    return document


def plan_inputs(spec: LLMDeploymentSpec) -> str:
    """Digest of the fields that a plan depends on."""
    document = spec.to_dict()
    planned = {key: value for key, value in document.items() if key not in _NOT_PLANNED}
    runtime = document.get("runtime") or {}
    planned["runtime"] = {key: value for key, value in runtime.items() if key in _RUNTIME_PLANNED}
    return digest(planned)


def model_inputs(spec: LLMDeploymentSpec) -> str:
    """Digest of the fields that the model which is read depends on: to plan anew is no wish for another commit."""
    return plan_inputs(spec.model_copy(update={"replan": None}))


def rendering_inputs(spec: LLMDeploymentSpec, plan: Plan) -> str:
    """Digest of what a pod template is rendered from, without the operator's own version and settings."""
    document = spec.to_dict()
    rendered = {key: document.get(key) for key in _RENDERED}
    tolerations = (document.get("hardware") or {}).get("tolerations")
    return digest({"spec": rendered, "tolerations": tolerations, "plan": plan.digest()})
