"""What happens between a plan and serving replicas.

Part of the table of reasons; it holds words only, never a decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from stowage.api.reason_docs.doc import ReasonDoc
from stowage.api.reasons import ConditionType, Reason

_PROGRESSING = ConditionType.PROGRESSING
_AVAILABLE = ConditionType.AVAILABLE
_DEGRADED = ConditionType.DEGRADED
_READY = ConditionType.READY

DOCS: Mapping[Reason, ReasonDoc] = MappingProxyType(
    {
        Reason.ROLLING_OUT: ReasonDoc(
            "Replicas of the new plan are started before old ones stop.",
            "Wait; status.readyReplicas counts the finished ones.",
            (_PROGRESSING, _READY),
        ),
        Reason.REPLACING_IN_PLACE: ReasonDoc(
            "No spare GPU exists, so each old replica stops before its successor starts; capacity is "
            "reduced meanwhile.",
            "Wait, or free GPUs; spec.rollout.strategy: Surge refuses to go below capacity.",
            (_PROGRESSING, _READY),
        ),
        Reason.WAITING_FOR_SPARE_GPUS: ReasonDoc(
            "spec.rollout.strategy is Surge and no GPUs are free for the new replica.",
            "Free GPUs, or set spec.rollout.strategy to Auto or InPlace.",
            (_PROGRESSING, _READY),
        ),
        Reason.SCALING: ReasonDoc(
            "The number of replicas is being changed.",
            "Wait.",
            (_PROGRESSING, _READY),
        ),
        Reason.SCHEDULING: ReasonDoc(
            "Pods wait for the scheduler.",
            "Wait; if it stays, `kubectl describe pod` shows the scheduler's words.",
            (_PROGRESSING, _READY),
        ),
        Reason.PULLING_IMAGE: ReasonDoc(
            "The node is pulling the engine's or the agent's image.",
            "Wait; engine images are around 10 GB.",
            (_PROGRESSING, _READY),
        ),
        Reason.STARTING: ReasonDoc(
            "The agent runs its checks of the machine before it starts the engine.",
            "Wait.",
            (_PROGRESSING, _READY),
        ),
        Reason.FETCHING_MODEL: ReasonDoc(
            "The pod is downloading the model.",
            "Wait; the message has the bytes done and to do.",
            (_PROGRESSING, _READY),
        ),
        Reason.LOADING_MODEL: ReasonDoc(
            "The engine is loading weights into memory.",
            "Wait.",
            (_PROGRESSING, _READY),
        ),
        Reason.WARMING_UP: ReasonDoc(
            "The engine profiles memory, captures CUDA graphs, and answers the agent's first completion.",
            "Wait.",
            (_PROGRESSING, _READY),
        ),
        Reason.DRAINING: ReasonDoc(
            "Replicas finish their running requests before they stop.",
            "Wait.",
            (_PROGRESSING,),
        ),
        Reason.MINIMUM_REPLICAS_UNAVAILABLE: ReasonDoc(
            "No replica is serving.",
            "See conditions Progressing and Degraded for the cause.",
            (_AVAILABLE, _READY),
        ),
        Reason.DEADLINE_EXCEEDED: ReasonDoc(
            "The rollout made no progress within its deadline.",
            "See condition Degraded and the pods' logs; spec.runtime.startupTimeout sets the "
            "start-up budget.",
            (_PROGRESSING, _DEGRADED, _READY),
        ),
        Reason.APPLY_FAILED: ReasonDoc(
            "The API server refused an object that Stowage wanted to write (admission, permission or "
            "conflict).",
            "Read the server's words in the message; check admission policies and the operator's RBAC.",
            (_PROGRESSING, _DEGRADED, _READY),
        ),
    }
)
