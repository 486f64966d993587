"""What the kubelet writes as the reason of a waiting or terminated container, and what it means to us.

Source: kubernetes/kubernetes pkg/kubelet/images/types.go, pkg/kubelet/container/sync_result.go and
pkg/kubelet/kuberuntime/kuberuntime_container.go (1.36).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from stowage.api.conditions import Reason

WAITING_PROBLEMS: Mapping[str, Reason] = MappingProxyType(
    {
        "ErrImagePull": Reason.IMAGE_PULL_FAILED,
        "ImagePullBackOff": Reason.IMAGE_PULL_FAILED,
        "InvalidImageName": Reason.IMAGE_PULL_FAILED,
        "ErrImageNeverPull": Reason.IMAGE_PULL_FAILED,
        "ImageInspectError": Reason.IMAGE_PULL_FAILED,
        "RegistryUnavailable": Reason.IMAGE_PULL_FAILED,
        "SignatureValidationFailed": Reason.IMAGE_PULL_FAILED,
        "CreateContainerConfigError": Reason.SECRET_MISSING,
        "CreateContainerError": Reason.CRASH_LOOPING,
        "RunContainerError": Reason.CRASH_LOOPING,
        "PreCreateHookError": Reason.CRASH_LOOPING,
        "PostStartHookError": Reason.CRASH_LOOPING,
    }
)

TERMINATED_PROBLEMS: Mapping[str, Reason] = MappingProxyType({"OOMKilled": Reason.HOST_MEMORY_EXCEEDED})

POD_PROBLEMS: Mapping[str, Reason] = MappingProxyType(
    {
        "Evicted": Reason.EVICTED,
        "Preempting": Reason.EVICTED,
        "NodeLost": Reason.NODE_LOST,
        "NodeShutdown": Reason.NODE_LOST,
        "Terminated": Reason.NODE_LOST,
        "UnexpectedAdmissionError": Reason.UNSCHEDULABLE,
        "NodeAffinity": Reason.UNSCHEDULABLE,
        "OutOfcpu": Reason.UNSCHEDULABLE,
        "OutOfmemory": Reason.UNSCHEDULABLE,
    }
)
