"""The status of an LLMDeployment, composed as a whole from the decision and the replicas.

Nothing in it is ever read back as an input, except what keeps it stable: the previous conditions' transition times
and the published utilisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from stowage.api.conditions import Condition, ConditionType, find_condition
from stowage.api.v1alpha1.status import LLMDeploymentStatus
from stowage.engine.conditions import compose_conditions
from stowage.engine.decision import Decision
from stowage.engine.measured import engine_status, utilization_status
from stowage.engine.serving import Serving
from stowage.engine.situation import Situation
from stowage.render.names import replica_selector


def compose_status(
    situation: Situation, decision: Decision, serving: Serving | None, now: datetime
) -> dict[str, Any]:
    """The whole status, validated against the published types."""
    published: Mapping[str, Any] = situation.resource.get("status") or {}
    conditions = compose_conditions(situation, decision, serving, now)
    status: dict[str, Any] = {
        "observedGeneration": situation.generation,
        "conditions": [item.to_dict() for item in conditions],
        "plan": decision.status_plan,
        "replicas": serving.existing if serving else 0,
        "readyReplicas": serving.ready if serving else 0,
        "replicaSummary": f"{serving.ready if serving else 0}/{situation.replicas}",
        "selector": replica_selector(situation.name),
    }
    if decision.accuracy is not None:
        status["accuracy"] = decision.accuracy.status
    if serving is not None:
        options = situation.world.options
        status["engine"] = engine_status(serving, published.get("engine"))
        status["utilization"] = utilization_status(serving, published.get("utilization"), options, now)
        status["scaling"] = _scaling(serving, conditions)
    known = {key: value for key, value in status.items() if value is not None}
    return LLMDeploymentStatus.model_validate(known).to_dict()


def _scaling(serving: Serving, conditions: tuple[Condition, ...]) -> dict[str, Any]:
    able = find_condition(conditions, ConditionType.ABLE_TO_SCALE)
    scaling: dict[str, Any] = {"desiredReplicas": serving.rollout.replicas}
    if able is not None:
        scaling |= {"reason": able.reason, "message": able.message}
    return scaling
