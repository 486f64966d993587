"""What can be wrong with running pods, including every reason that the agent may end with.

Part of the table of reasons; it holds words only, never a decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from stowage.api.reason_docs.doc import ReasonDoc
from stowage.api.reasons import ConditionType, Reason

_PLANNED = ConditionType.PLANNED
_PROGRESSING = ConditionType.PROGRESSING
_DEGRADED = ConditionType.DEGRADED
_READY = ConditionType.READY

DOCS: Mapping[Reason, ReasonDoc] = MappingProxyType(
    {
        Reason.UNSCHEDULABLE: ReasonDoc(
            "The scheduler found no node for a pod, although the plan had a place for it.",
            "The message has the scheduler's words; another workload may have taken the GPUs meanwhile.",
            (_PROGRESSING, _DEGRADED, _READY),
        ),
        Reason.IMAGE_PULL_FAILED: ReasonDoc(
            "The node cannot pull an image: wrong name, no access, or registry unreachable.",
            "Check spec.runtime.image and imagePullSecrets; the message has the registry's words.",
            (_PROGRESSING, _DEGRADED, _READY),
        ),
        Reason.PODS_REFUSED: ReasonDoc(
            "The API server refuses to create the pods (pod security, service account, priority class or "
            "admission policy).",
            "Read the server's words in the message and correct spec.runtime or the namespace's policy.",
            (_PROGRESSING, _DEGRADED, _READY),
        ),
        Reason.CRASH_LOOPING: ReasonDoc(
            "A container ends again and again without a reason that Stowage knows.",
            "Read `kubectl logs --previous` of the pod that the message names.",
            (_DEGRADED, _READY),
        ),
        Reason.HOST_MEMORY_EXCEEDED: ReasonDoc(
            "The kernel killed the container because it used more host memory than its limit (OOMKilled).",
            "Raise spec.runtime.resources.limits.memory or leave the limit out.",
            (_DEGRADED, _READY),
        ),
        Reason.EVICTED: ReasonDoc(
            "A pod was evicted by its node or preempted by another pod.",
            "Check the node's pressure conditions, or set spec.runtime.priorityClassName.",
            (_DEGRADED, _READY),
        ),
        Reason.NODE_LOST: ReasonDoc(
            "The node of a replica is gone or does not report any more.",
            "Check the node; the replica is started elsewhere when GPUs are free.",
            (_DEGRADED, _READY),
        ),
        Reason.REPORT_UNAVAILABLE: ReasonDoc(
            "The agent of a running replica does not answer, so measurements are missing.",
            "Check network policies between the operator and port 9400 of the pods.",
            (_DEGRADED,),
        ),
        Reason.KV_CACHE_BELOW_PLAN: ReasonDoc(
            "The engine reports fewer KV-cache tokens than the plan's band allows.",
            "Compare predicted and measured in status.engine; please report the difference.",
            (_DEGRADED,),
        ),
        Reason.GPU_COUNT_MISMATCH: ReasonDoc(
            "The container sees another number of GPUs than the plan gave it.",
            "Check the device plugin and NVIDIA_VISIBLE_DEVICES on the node.",
            (_PROGRESSING, _DEGRADED, _READY),
        ),
        Reason.GPU_MEMORY_TOO_SMALL: ReasonDoc(
            "A GPU has less memory than the node's labels said.",
            "Correct the label nvidia.com/gpu.memory (restart GPU feature discovery) or exclude the node.",
            (_PROGRESSING, _DEGRADED, _READY),
        ),
        Reason.GPU_TYPE_MISMATCH: ReasonDoc(
            "A GPU is of another product or compute capability than the plan was made for.",
            "Correct the node's GPU labels, or exclude the node by spec.hardware.nodeSelector.",
            (_PROGRESSING, _DEGRADED, _READY),
        ),
        Reason.DRIVER_UNAVAILABLE: ReasonDoc(
            "The NVIDIA driver cannot be reached from the container, or is too old for the engine.",
            "Check the driver and the container toolkit on the node that the message names.",
            (_PROGRESSING, _DEGRADED, _READY),
        ),
        Reason.ENGINE_VERSION_MISMATCH: ReasonDoc(
            "The image holds another vLLM version than spec.engine.version, so the plan does not "
            "apply to it.",
            "Set spec.engine.version to the version in the message, or use the matching image.",
            (_PROGRESSING, _DEGRADED, _READY),
        ),
        Reason.ENGINE_MISSING: ReasonDoc(
            "The image has no vLLM that python3 can import.",
            "Use a vLLM image in spec.runtime.image, or leave the field out.",
            (_PROGRESSING, _DEGRADED, _READY),
        ),
        Reason.MODEL_FETCH_FAILED: ReasonDoc(
            "The pod could not download or read the model's files.",
            "Check network, disk space and the source; the message has the cause.",
            (_PROGRESSING, _DEGRADED, _READY),
        ),
        Reason.CUDA_OUT_OF_MEMORY: ReasonDoc(
            "The engine ran out of GPU memory while starting or serving.",
            "Lower engine.gpuMemoryUtilization, maxNumSeqs or maxNumBatchedTokens, or use more GPUs "
            "per replica.",
            (_PROGRESSING, _DEGRADED, _READY),
        ),
        Reason.KV_CACHE_TOO_SMALL: ReasonDoc(
            "The engine found less room for the KV cache than one request of maxModelLen needs.",
            "Lower workload.maxModelLen, or raise engine.gpuMemoryUtilization or engine.kvCacheMemory.",
            (_PROGRESSING, _DEGRADED, _READY),
        ),
        Reason.FREE_MEMORY_BELOW_UTILIZATION: ReasonDoc(
            "When the engine started, less GPU memory was free than gpuMemoryUtilization asks for.",
            "Find what else uses the GPU, or lower engine.gpuMemoryUtilization.",
            (_PLANNED, _PROGRESSING, _DEGRADED, _READY),
        ),
        Reason.ENGINE_EXITED: ReasonDoc(
            "The engine ended for a cause that its output does not make clear.",
            "Read the last lines in the message and `kubectl logs --previous`.",
            (_PROGRESSING, _DEGRADED, _READY),
        ),
        Reason.STARTUP_TIMEOUT: ReasonDoc(
            "The replica was not serving within its start-up budget.",
            "Raise spec.runtime.startupTimeout, or make the download faster.",
            (_PROGRESSING, _DEGRADED, _READY),
        ),
        Reason.SELF_TEST_FAILED: ReasonDoc(
            "The engine started but did not answer the agent's own completion.",
            "Read the engine's log; check runtime.args and the model's chat template and tokenizer.",
            (_PROGRESSING, _DEGRADED, _READY),
        ),
        Reason.INVALID_LAUNCH_SPEC: ReasonDoc(
            "The agent cannot read the launch configuration that the operator wrote.",
            "Check that operator and agent image have matching versions; please report it.",
            (_PROGRESSING, _DEGRADED, _READY),
        ),
        Reason.DISK_FULL: ReasonDoc(
            "The volume for the model cache is full.",
            "Give the node more ephemeral storage, or serve the model from a pvc:// source.",
            (_PROGRESSING, _DEGRADED, _READY),
        ),
    }
)
