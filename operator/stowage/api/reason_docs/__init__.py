"""The table of reasons: meaning, hint and conditions of every member of `Reason`.

`docs/reasons.md` is generated from it, and hints in messages are taken from it. It must never decide
anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from stowage.api.reason_docs import model, outcomes, plan, pods, rollout
from stowage.api.reason_docs.doc import ReasonDoc
from stowage.api.reasons import ConditionType, Reason

__all__ = ["CONDITION_MEANINGS", "REASON_DOCS", "ReasonDoc"]

REASON_DOCS: Mapping[Reason, ReasonDoc] = MappingProxyType(
    {**outcomes.DOCS, **model.DOCS, **plan.DOCS, **rollout.DOCS, **pods.DOCS}
)

CONDITION_MEANINGS: Mapping[ConditionType, str] = MappingProxyType(
    {
        ConditionType.ACCEPTED: (
            "The spec is valid, all its fields are supported, and the model's configuration could be read."
        ),
        ConditionType.PLANNED: (
            "A shape that fits was found for this generation: GPU type, parallelism, precision and memory."
        ),
        ConditionType.PROGRESSING: (
            "Pods are being brought to the plan (True), or that work is finished or stuck (False)."
        ),
        ConditionType.AVAILABLE: (
            "At least one replica is serving: it has answered a real completion. Replicas of an older "
            "plan count."
        ),
        ConditionType.ABLE_TO_SCALE: (
            "Another replica could be placed: GPUs, node resources and quota are there for it."
        ),
        ConditionType.SCALING_ACTIVE: (
            "Stowage itself decides the number of replicas (False under scaling.mode External)."
        ),
        ConditionType.DEGRADED: (
            "Something is wrong that a person may have to look at, though requests may still be served."
        ),
        ConditionType.READY: (
            "Summary: Accepted, Planned and Available are True for this generation, and no replica of an "
            "older plan is left."
        ),
    }
)
