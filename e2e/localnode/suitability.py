"""Decide whether this node can run a pod faithfully; if not, say in one sentence why. Pure.

This is where the tool refuses to pretend: unknown fields, volumes that cannot be shown, GPUs that a real
engine would look for in vain.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from e2e.localnode.context import NodeContext
from e2e.localnode.fields import unsupported_field
from e2e.localnode.inventory import NodeManifest
from e2e.localnode.simulated_gpus import held_gpus

_TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"


def refusal(pod: Mapping[str, Any], node: NodeManifest, context: NodeContext) -> str:
    """Return why the pod cannot run here; the empty string if it can."""
    field = unsupported_field(pod["spec"])
    if field:
        return f"the local node does not implement {field}"
    containers = [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]
    if not context.isolation.mounts:
        for container in containers:
            if _own_mounts(container):
                reason = context.isolation.reason
                text = "volumeMounts need mount namespaces, which are refused here"
                return f"container {container['name']}: {text} ({reason})"
    for container in containers:
        if held_gpus(container) and context.images.engine(container["image"]) == "real":
            text = f"requests GPUs, which are simulated on node {node.name}, but image {container['image']}"
            return f"container {container['name']} {text} is a real engine: it needs a stand-in"
    return ""


def _own_mounts(container: Mapping[str, Any]) -> bool:
    """Whether a container has mounts besides the token that admission adds to every pod."""
    mounts = container.get("volumeMounts") or []
    return any(entry["mountPath"] != _TOKEN_PATH for entry in mounts)
