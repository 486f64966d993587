"""Small raw objects for tests of the shell."""

from __future__ import annotations

from typing import Any

from stowage.world import Key

KEY = Key("default", "llama")


def labels(name: str = "llama", role: str = "server") -> dict[str, str]:
    return {"app.kubernetes.io/managed-by": "stowage", "stowage.dev/name": name, "stowage.dev/role": role}


def template_annotation(template: str = "1") -> dict[str, str]:
    """What a pod template of ours and the pods made from it carry."""
    return {"stowage.dev/template-hash": template}


def owner(uid: str = "owner-1", name: str = "llama") -> dict[str, Any]:
    return {
        "apiVersion": "stowage.dev/v1alpha1",
        "kind": "LLMDeployment",
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def llm(name: str = "llama", version: int = 1, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "stowage.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
            "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            **metadata,
        },
        "spec": {"model": {"source": "hf://org/tiny"}},
    }


def config_map(name: str = "llama-launch", version: int = 1, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
            "labels": labels(),
            "ownerReferences": [owner()],
            **metadata,
        },
        "data": {"launch.json": "{}"},
    }


def pod(
    name: str,
    version: int = 1,
    *,
    node: str | None = None,
    gpus: int = 0,
    own: str | None = None,
    role: str = "server",
    phase: str = "Running",
    template: str = "1",
    **metadata: Any,
) -> dict[str, Any]:
    """A pod; one that has an `own`er was made from the pod template whose hash is `template`."""
    requests = {"cpu": "1", "memory": "1Gi", **({"nvidia.com/gpu": str(gpus)} if gpus else {})}
    spec: dict[str, Any] = {"containers": [{"name": "main", "resources": {"requests": requests}}]}
    if node is not None:
        spec["nodeName"] = node
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
            **({"labels": labels(own, role), "annotations": template_annotation(template)} if own else {}),
            **metadata,
        },
        "spec": spec,
        "status": {"phase": phase},
    }


def node(name: str, version: int = 1, gpus: int = 8, **spec: Any) -> dict[str, Any]:
    amounts = {"cpu": "64", "memory": "512Gi", "pods": "110", "nvidia.com/gpu": str(gpus)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
            "labels": {
                "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
                "nvidia.com/gpu.count": str(gpus),
                "nvidia.com/gpu.memory": "81559",
                "nvidia.com/gpu.compute.major": "9",
                "nvidia.com/gpu.compute.minor": "0",
            },
        },
        "spec": spec,
        "status": {
            "allocatable": amounts,
            "capacity": amounts,
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "lastHeartbeatTime": f"2026-01-01T00:00:{version % 60:02}Z",
                }
            ],
        },
    }
