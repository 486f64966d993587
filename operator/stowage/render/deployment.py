"""The Deployment of the replicas, and the record of what it was made from.

The record (`stowage.dev/in-force`) holds the spec, the plan, the launch specification and the rendered template. It is
what makes a plan sticky and an operator upgrade harmless: as long as nothing that the user or the planner decides
has changed, the recorded template is applied again, byte for byte, whatever version renders.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stowage.render import names
from stowage.render.canonical import canonical_json

ROLLOUT_MARGIN_SECONDS = 600


def deployment(
    resource: Mapping[str, Any],
    template: Mapping[str, Any],
    record: Mapping[str, Any],
    replicas: int,
    strategy: Mapping[str, Any],
) -> dict[str, Any]:
    """A Deployment named like the LLMDeployment.

    `progressDeadlineSeconds` is longer than the start-up budget of the pods, or a slow load would count as a failure.
    """
    name = resource["metadata"]["name"]
    metadata = names.object_metadata(resource, name)
    metadata["annotations"] = {names.IN_FORCE_ANNOTATION: canonical_json(record)}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": replicas,
            # Stated, so that a rollout that somebody paused by hand goes on.
            "paused": False,
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": _startup_seconds(template) + ROLLOUT_MARGIN_SECONDS,
            "selector": {"matchLabels": names.selector_labels(name)},
            "strategy": dict(strategy),
            "template": dict(template),
        },
    }


def rolling_update(surge: int) -> dict[str, Any]:
    """A strategy that starts `surge` new replicas first, or replaces in place when there is no spare GPU."""
    return {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": surge, "maxUnavailable": 0 if surge else 1},
    }


def _startup_seconds(template: Mapping[str, Any]) -> int:
    probe = template["spec"]["containers"][0]["startupProbe"]
    return int(probe["failureThreshold"] * probe["periodSeconds"])
