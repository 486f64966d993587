"""Raw Nodes, Pods and ResourceQuotas for tests, as short to write as they are to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

GFD_MEMORY_MIB = {
    "NVIDIA-L4": 23034,
    "NVIDIA-A10G": 23028,
    "NVIDIA-L40S": 46068,
    "NVIDIA-A100-SXM4-80GB": 81920,
    "NVIDIA-H100-80GB-HBM3": 81559,
    "NVIDIA-H200": 143771,
    "NVIDIA-B200": 183359,
    "Tesla-T4": 15360,
}


def gfd_labels(product: str, count: int, **more: str) -> dict[str, str]:
    labels = {
        "nvidia.com/gpu.product": product,
        "nvidia.com/gpu.count": str(count),
        "nvidia.com/gpu.replicas": "1",
        "nvidia.com/gpu.sharing-strategy": "none",
        "nvidia.com/mig.config.state": "success",
    }
    if product in GFD_MEMORY_MIB:
        labels["nvidia.com/gpu.memory"] = str(GFD_MEMORY_MIB[product])
    return {**labels, **{f"nvidia.com/{key}": value for key, value in more.items()}}


def node(
    name: str,
    *,
    labels: Mapping[str, str] | None = None,
    extended: Mapping[str, int] | None = None,
    cpu: str = "32",
    memory: str = "256Gi",
    pods: int = 110,
    taints: list[dict[str, str]] | None = None,
    unschedulable: bool = False,
    ready: bool = True,
    capacity: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    amounts = {"cpu": cpu, "memory": memory, "pods": str(pods)}
    offered = {key: str(value) for key, value in (extended or {}).items()}
    whole = {key: str(value) for key, value in (capacity or extended or {}).items()}
    spec: dict[str, Any] = {"unschedulable": True} if unschedulable else {}
    if taints:
        spec["taints"] = taints
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
        "spec": spec,
        "status": {
            "allocatable": {**amounts, **offered},
            "capacity": {**amounts, **whole},
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


def gpu_node(name: str, product: str, count: int, **more: Any) -> dict[str, Any]:
    extra = more.pop("labels", {})
    return node(
        name,
        labels={**gfd_labels(product, count), **extra},
        extended=more.pop("extended", {"nvidia.com/gpu": count}),
        taints=more.pop("taints", [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]),
        **more,
    )


def pod(
    name: str,
    requests: Mapping[str, str] | None = None,
    *,
    on: str | None = None,
    namespace: str = "default",
    owner: str | None = None,
    spec: Mapping[str, Any] | None = None,
    phase: str = "Running",
) -> dict[str, Any]:
    labels = {"stowage.dev/name": owner} if owner else {}
    body: dict[str, Any] = {"containers": [{"name": "main", "resources": {"requests": dict(requests or {})}}]}
    body.update(spec or {})
    if on:
        body["nodeName"] = on
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": body,
        "status": {"phase": phase},
    }


def quota(
    name: str, hard: Mapping[str, str], used: Mapping[str, str] | None = None, **spec: Any
) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"hard": dict(hard), **spec},
        "status": {"hard": dict(hard), "used": dict(used or {})},
    }
