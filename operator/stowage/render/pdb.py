"""The PodDisruptionBudget: at most one replica at a time may be evicted.

`maxUnavailable: 1` never blocks the drain of a node, not even at one replica, and unhealthy pods may always go:
a server that cannot start must not hold a node.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stowage.render import names


def pod_disruption_budget(resource: Mapping[str, Any]) -> dict[str, Any]:
    """A budget over the server pods, named like the LLMDeployment."""
    name = resource["metadata"]["name"]
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": names.object_metadata(resource, name),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": names.selector_labels(name)},
        },
    }
