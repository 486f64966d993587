"""The Service in front of the replicas: plain round robin over pods that have answered a completion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stowage.render import names


def service(resource: Mapping[str, Any]) -> dict[str, Any]:
    """A ClusterIP Service on vLLM's own port, named like the LLMDeployment."""
    name = resource["metadata"]["name"]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": names.object_metadata(resource, name),
        "spec": {
            "type": "ClusterIP",
            "selector": names.selector_labels(name),
            "ports": [{"name": "http", "port": names.HTTP_PORT, "targetPort": "http", "protocol": "TCP"}],
        },
    }
