"""Why there is no plan, or why a candidate was refused.

Part of the table of reasons; it holds words only, never a decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from stowage.api.reason_docs.doc import ReasonDoc
from stowage.api.reasons import ConditionType, Reason

_PLANNED = ConditionType.PLANNED
_PROGRESSING = ConditionType.PROGRESSING
_ABLE_TO_SCALE = ConditionType.ABLE_TO_SCALE
_DEGRADED = ConditionType.DEGRADED
_READY = ConditionType.READY

DOCS: Mapping[Reason, ReasonDoc] = MappingProxyType(
    {
        Reason.NO_GPUS: ReasonDoc(
            "The cluster has no node with a GPU that Stowage can see.",
            "Add GPU nodes with the device plugin and GPU feature discovery, or set "
            "spec.hardware.class: CPU.",
            (_PLANNED, _READY),
        ),
        Reason.NO_CPU_NODES: ReasonDoc(
            "spec.hardware.class is CPU and no schedulable node without GPUs matches.",
            "Relax spec.hardware.nodeSelector, add tolerations or add nodes.",
            (_PLANNED, _READY),
        ),
        Reason.NO_MATCHING_GPU: ReasonDoc(
            "There are GPUs, but none that spec.hardware.gpus, nodeSelector and tolerations allow.",
            "Compare spec.hardware with the node labels nvidia.com/gpu.product in the message.",
            (_PLANNED, _READY),
        ),
        Reason.UNKNOWN_GPU: ReasonDoc(
            "The node's labels name a GPU that the catalog does not have, or there are no labels at all.",
            "Install GPU feature discovery, or add the GPU to the catalog; the message has the line to add.",
            (_PLANNED, _READY),
        ),
        Reason.UNSUPPORTED_GPU: ReasonDoc(
            "The GPU is known but this version cannot plan for it (vendor, MIG slice, or shared by time- "
            "slicing).",
            "Use whole NVIDIA GPUs, or leave the other nodes out by spec.hardware.nodeSelector.",
            (_PLANNED, _READY),
        ),
        Reason.INSUFFICIENT_GPUS: ReasonDoc(
            "Fewer GPUs are free on one node, or exist at all, than the shape needs.",
            "Free or add GPUs, lower spec.parallelism or spec.replicas, or allow other GPUs in "
            "spec.hardware.",
            (_PLANNED, _ABLE_TO_SCALE, _READY),
        ),
        Reason.GPUS_GRANTED_ELSEWHERE: ReasonDoc(
            "The GPUs are free but promised to an older LLMDeployment that wanted them first.",
            "Add GPUs, or scale down or delete the LLMDeployment that the message names.",
            (_PLANNED, _ABLE_TO_SCALE, _READY),
        ),
        Reason.GPU_LIMIT_REACHED: ReasonDoc(
            "The shape or the replicas need more GPUs than hardware.maxGPUs or maxGPUsPerReplica allows.",
            "Raise the limit, or lower spec.replicas or spec.parallelism.",
            (_PLANNED, _ABLE_TO_SCALE, _READY),
        ),
        Reason.INSUFFICIENT_MEMORY: ReasonDoc(
            "Weights and working memory leave no room for even one request on the GPUs that are allowed.",
            "Use more GPUs per replica or larger ones; the message says how much is missing and what "
            "would fit.",
            (_PLANNED, _READY),
        ),
        Reason.CONTEXT_TOO_LONG: ReasonDoc(
            "workload.maxModelLen is longer than the model allows, or one such request does not fit into "
            "the KV cache.",
            "Lower workload.maxModelLen to the value in the message, or use more or larger GPUs.",
            (_PLANNED, _READY),
        ),
        Reason.CONCURRENCY_TOO_HIGH: ReasonDoc(
            "The KV cache cannot hold workload.concurrencyPerReplica requests of the stated lengths.",
            "Lower concurrencyPerReplica and add replicas, shorten the requests, or use more or larger GPUs.",
            (_PLANNED, _READY),
        ),
        Reason.INVALID_PARALLELISM: ReasonDoc(
            "The model cannot be split this way: the size does not divide its heads, layers or vocabulary.",
            "Set spec.parallelism to a size that the message lists, or leave it out.",
            (_PLANNED, _READY),
        ),
        Reason.UNSUPPORTED_DTYPE: ReasonDoc(
            "The GPU or the engine version has no kernels for this weight or KV-cache precision.",
            "Choose another spec.precision.kvCache, another checkpoint, or a newer GPU.",
            (_PLANNED, _READY),
        ),
        Reason.PIN_CONFLICT: ReasonDoc(
            "A pinned engine setting cannot work with this model or with another pin.",
            "Remove the pin that the message names, or change it to the value given there.",
            (_PLANNED, _READY),
        ),
        Reason.NODES_UNSCHEDULABLE: ReasonDoc(
            "Nodes with fitting GPUs exist but are cordoned, not ready, or tainted without a "
            "toleration for it.",
            "Uncordon the node, or add the toleration that the message names to spec.hardware.tolerations.",
            (_PLANNED, _ABLE_TO_SCALE, _READY),
        ),
        Reason.INSUFFICIENT_NODE_RESOURCES: ReasonDoc(
            "The GPUs are free but the node lacks CPU, memory or pod slots for the replica.",
            "Lower spec.runtime.resources, or free CPU and memory on the nodes that the message names.",
            (_PLANNED, _ABLE_TO_SCALE, _READY),
        ),
        Reason.QUOTA_EXCEEDED: ReasonDoc(
            "A ResourceQuota of the namespace leaves too little for the replicas.",
            "Raise the quota that the message names, or lower spec.replicas or spec.parallelism.",
            (_PLANNED, _PROGRESSING, _ABLE_TO_SCALE, _DEGRADED, _READY),
        ),
        Reason.PLAN_NO_LONGER_FITS: ReasonDoc(
            "The plan in force cannot be placed any more (nodes vanished or changed); running "
            "replicas are kept.",
            "Bring the nodes back, or change the spec so that a new plan can be made.",
            (_PLANNED, _DEGRADED, _READY),
        ),
        Reason.OBJECTIVES_NOT_MET: ReasonDoc(
            "No shape that fits is forecast to meet spec.objectives for the stated workload.",
            "Relax the objective that the message names, lower the load of a replica, or allow faster GPUs.",
            (_PLANNED, _READY),
        ),
        Reason.OBJECTIVES_BELOW_FLOOR: ReasonDoc(
            "spec.objectives asks for a latency that no usable GPU reaches even for a single request.",
            "Ask for no less than the floor that the message states, or allow faster GPUs.",
            (_PLANNED, _READY),
        ),
        Reason.ACCURACY_CHECK_PENDING: ReasonDoc(
            "Only a lossy plan fits, and its accuracy check waits, runs or could not be carried out yet.",
            "Wait; status.accuracy says what the check does, and which GPUs it waits for.",
            (_PLANNED, _READY),
        ),
        Reason.ACCURACY_CHECK_FAILED: ReasonDoc(
            "The accuracy check of a lossy plan has shown a loss above precision.accuracy.maxDrop, so that "
            "plan is not taken.",
            "See status.accuracy; allow another checkpoint, more GPUs for a lossless plan, or a larger maxDrop.",
            (_PLANNED, _READY),
        ),
        Reason.ACCURACY_CHECK_INCONCLUSIVE: ReasonDoc(
            "The accuracy check of a lossy plan could show neither a loss above precision.accuracy.maxDrop "
            "nor the lack of one, so that plan is not taken.",
            "Use as many prompts as status.accuracy.neededPrompts says, under a new promptsRef, or a "
            "larger maxDrop.",
            (_PLANNED, _READY),
        ),
        Reason.INVALID_PROMPTS: ReasonDoc(
            "The ConfigMap of precision.accuracy.promptsRef has no usable prompts; the message names the line.",
            "Write one JSON object per line under the key prompts.jsonl (docs/accuracy.md); it is read again "
            "within minutes.",
            (_PLANNED, _DEGRADED, _READY),
        ),
    }
)
