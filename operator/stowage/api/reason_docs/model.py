"""Why a spec or a model cannot be accepted.

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
_DEGRADED = ConditionType.DEGRADED
_READY = ConditionType.READY

DOCS: Mapping[Reason, ReasonDoc] = MappingProxyType(
    {
        Reason.INVALID_SPEC: ReasonDoc(
            "A field has a value that cannot be used, or two fields contradict each other.",
            "Change the field that the message names.",
            (_ACCEPTED, _READY),
        ),
        Reason.NOT_SUPPORTED: ReasonDoc(
            "A field or a combination is part of the API but this version does not act on it yet.",
            "Remove the field that the message names, or use a version that supports it.",
            (_ACCEPTED, _PLANNED, _READY),
        ),
        Reason.NAME_TAKEN: ReasonDoc(
            "An object that Stowage did not make already has a name that it needs.",
            "Delete or rename the named object, or give the LLMDeployment another name.",
            (_ACCEPTED, _DEGRADED, _READY),
        ),
        Reason.MODEL_NOT_FOUND: ReasonDoc(
            "The Hub, the volume or the image has no model under this source.",
            "Check spec.model.source for spelling; a private model looks the same without a token.",
            (_ACCEPTED, _DEGRADED, _READY),
        ),
        Reason.REVISION_NOT_FOUND: ReasonDoc(
            "The model exists but the branch, tag or commit in spec.model.revision does not.",
            "Correct spec.model.revision or leave it out to take the default branch.",
            (_ACCEPTED, _READY),
        ),
        Reason.MODEL_ACCESS_DENIED: ReasonDoc(
            "The Hub answered 401 or 403: the model is gated or private and no token, or a wrong "
            "one, was used.",
            "Accept the model's licence, put a token with access into a Secret and name it in "
            "spec.model.tokenSecretRef.",
            (_ACCEPTED, _DEGRADED, _READY),
        ),
        Reason.HUB_UNREACHABLE: ReasonDoc(
            "The Hub could not be reached, or answered with a server error.",
            "Check the network, proxy and HF_ENDPOINT; in an air-gapped cluster use pvc:// or "
            "spec.model.configRef.",
            (_ACCEPTED, _DEGRADED, _READY),
        ),
        Reason.HUB_RATE_LIMITED: ReasonDoc(
            "The Hub answered 429: too many requests from this address or token.",
            "It is retried after the time the Hub names; a token in spec.model.tokenSecretRef raises "
            "the limit.",
            (_ACCEPTED, _DEGRADED, _READY),
        ),
        Reason.INVALID_MODEL_CONFIG: ReasonDoc(
            "config.json is not JSON, or lacks a field that sizing needs.",
            "Repair the model's config.json, or give a correct one in spec.model.configRef.",
            (_ACCEPTED, _READY),
        ),
        Reason.INVALID_CHECKPOINT: ReasonDoc(
            "The weight files are missing, are not safetensors, or their headers cannot be read.",
            "Use a checkpoint with complete safetensors files (`stowage inspect SOURCE` shows what "
            "is there).",
            (_ACCEPTED, _READY),
        ),
        Reason.UNSUPPORTED_ARCHITECTURE: ReasonDoc(
            "The memory of this model architecture is not known to this version, so it is not guessed.",
            "Use a supported architecture (the message names it), or a newer version of Stowage.",
            (_ACCEPTED, _READY),
        ),
        Reason.UNSUPPORTED_QUANTIZATION: ReasonDoc(
            "The checkpoint is quantised in a way whose memory is not known to this version.",
            "Use the unquantised checkpoint of the model, or a newer version of Stowage.",
            (_ACCEPTED, _PLANNED, _READY),
        ),
        Reason.UNSUPPORTED_ENGINE_VERSION: ReasonDoc(
            "There is no memory model for this vLLM version.",
            "Set spec.engine.version to a version that the message lists.",
            (_ACCEPTED, _PLANNED, _READY),
        ),
        Reason.CONFIG_MAP_MISSING: ReasonDoc(
            "The ConfigMap that spec.model.configRef names does not exist in this namespace.",
            "Create it with the output of `stowage inspect SOURCE` under the key checkpoint.json.",
            (_ACCEPTED, _READY),
        ),
        Reason.INVALID_CONFIG_MAP: ReasonDoc(
            "The ConfigMap that spec.model.configRef names has neither checkpoint.json nor config.json, "
            "or they cannot be read.",
            "Fill it with the output of `stowage inspect SOURCE` under the key checkpoint.json.",
            (_ACCEPTED, _READY),
        ),
        Reason.VOLUME_CLAIM_MISSING: ReasonDoc(
            "The PersistentVolumeClaim that a pvc:// source names does not exist in this namespace, or is "
            "not bound.",
            "Create the claim, or correct spec.model.source.",
            (_ACCEPTED, _DEGRADED, _READY),
        ),
        Reason.SECRET_MISSING: ReasonDoc(
            "A pod cannot start because a Secret, or the key in it, does not exist in this namespace.",
            "Create the Secret that the message names, or correct tokenSecretRef, env or imagePullSecrets.",
            (_ACCEPTED, _PROGRESSING, _DEGRADED, _READY),
        ),
        Reason.INSPECTION_FAILED: ReasonDoc(
            "The pod that reads the model's configuration in this namespace did not finish.",
            "Read the message; it names the pod's own reason (scheduling, image, volume or token).",
            (_ACCEPTED, _READY),
        ),
    }
)
