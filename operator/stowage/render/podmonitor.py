"""The PodMonitor for clusters that run the Prometheus operator; rendered only where that kind is installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stowage.render import names

POD_MONITOR_KIND = "monitoring.coreos.com/v1/PodMonitor"


def pod_monitor(resource: Mapping[str, Any]) -> dict[str, Any]:
    """Scrapes vLLM's own /metrics on every server pod."""
    name = resource["metadata"]["name"]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": names.object_metadata(resource, name),
        "spec": {
            "selector": {"matchLabels": names.selector_labels(name)},
            "podMetricsEndpoints": [{"port": "http", "path": "/metrics", "interval": "15s"}],
        },
    }
