"""What is as wanted, or simply under way.

Part of the table of reasons; it holds words only, never a decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from stowage.api.reason_docs.doc import ReasonDoc
from stowage.api.reasons import ConditionType, Reason

_ACCEPTED = ConditionType.ACCEPTED
_PLANNED = ConditionType.PLANNED
_PROGRESSING = ConditionType.PROGRESSING
_AVAILABLE = ConditionType.AVAILABLE
_ABLE_TO_SCALE = ConditionType.ABLE_TO_SCALE
_SCALING_ACTIVE = ConditionType.SCALING_ACTIVE
_DEGRADED = ConditionType.DEGRADED
_READY = ConditionType.READY

DOCS: Mapping[Reason, ReasonDoc] = MappingProxyType(
    {
        Reason.VALID: ReasonDoc(
            "The spec is consistent, supported, and the model's configuration was read.",
            "Nothing to do.",
            (_ACCEPTED,),
        ),
        Reason.FITS: ReasonDoc(
            "A shape was found that holds the model and can be placed.",
            "Nothing to do; status.plan shows the shape and its memory ledger.",
            (_PLANNED,),
        ),
        Reason.COMPLETE: ReasonDoc(
            "All replicas run the current plan.",
            "Nothing to do.",
            (_PROGRESSING,),
        ),
        Reason.MINIMUM_REPLICAS_AVAILABLE: ReasonDoc(
            "At least one replica is serving.",
            "Nothing to do; status.readyReplicas counts them.",
            (_AVAILABLE,),
        ),
        Reason.AS_EXPECTED: ReasonDoc(
            "Nothing is known to be wrong.",
            "Nothing to do.",
            (_DEGRADED,),
        ),
        Reason.SERVING: ReasonDoc(
            "The deployment is accepted, planned and available for this generation.",
            "Nothing to do.",
            (_READY,),
        ),
        Reason.READY_FOR_NEW_SCALE: ReasonDoc(
            "The snapshot of the cluster has room for another replica.",
            "Nothing to do.",
            (_ABLE_TO_SCALE,),
        ),
        Reason.BETTER_PLAN_FOUND: ReasonDoc(
            "The plan in force is kept, and a new one would now be better by a tenth or more in what "
            "spec.objectives.priority asks for, or meet objectives that it misses.",
            "Nothing to do; status.plan.better says what it would bring and which value of spec.replan takes it.",
            (),
        ),
        Reason.SCALED_EXTERNALLY: ReasonDoc(
            "scaling.mode is External: spec.replicas is obeyed, whoever writes it.",
            "Point an HPA, KEDA or `kubectl scale` at the LLMDeployment.",
            (_SCALING_ACTIVE,),
        ),
        Reason.SCALED_TO_ZERO: ReasonDoc(
            "spec.replicas is 0, so no replica runs.",
            "Scale up with `kubectl scale llmd/NAME --replicas=1`.",
            (_AVAILABLE, _PROGRESSING, _SCALING_ACTIVE, _READY),
        ),
        Reason.PLAN_ONLY: ReasonDoc(
            "spec.mode is Plan: the plan is made and nothing is launched.",
            "Read status.plan; wait on condition Planned; set mode: Serve to launch it.",
            (_PROGRESSING, _AVAILABLE, _ABLE_TO_SCALE, _SCALING_ACTIVE, _READY),
        ),
        Reason.RECONCILING: ReasonDoc(
            "Stowage has not yet come to a verdict for this generation.",
            "Wait some seconds; if it stays, check that the operator runs and is the leader.",
            tuple(ConditionType),
        ),
        Reason.RESOLVING_MODEL: ReasonDoc(
            "The model's revision and configuration are being read.",
            "Wait; a pvc:// or gated model is inspected by a short pod in this namespace.",
            (_ACCEPTED, _PLANNED, _READY),
        ),
        Reason.NOT_ACCEPTED: ReasonDoc(
            "There is no plan because the spec or the model was not accepted.",
            "See condition Accepted.",
            (_PLANNED, _PROGRESSING, _AVAILABLE, _ABLE_TO_SCALE, _SCALING_ACTIVE),
        ),
        Reason.NOT_PLANNED: ReasonDoc(
            "Nothing is launched because no plan exists.",
            "See condition Planned.",
            (_PROGRESSING, _AVAILABLE, _ABLE_TO_SCALE, _SCALING_ACTIVE),
        ),
        Reason.PREVIOUS_PLAN_SERVING: ReasonDoc(
            "The current spec cannot be fulfilled; replicas of the last plan that could go on serving.",
            "Fix what condition Accepted or Planned names, or put the previous spec back.",
            (_PROGRESSING, _AVAILABLE, _DEGRADED),
        ),
        Reason.DELETING: ReasonDoc(
            "The LLMDeployment is being deleted; nothing is changed any more.",
            "Nothing to do; its objects go with it.",
            tuple(ConditionType),
        ),
    }
)
