"""What a Deployment says about pods that cannot be made."""

from __future__ import annotations

from typing import Any

import pytest

from stowage.api.conditions import Reason
from stowage.diagnosis.deployment import diagnose_deployment


def deployment(**condition: str) -> dict[str, Any]:
    return {"metadata": {"generation": 1}, "status": {"conditions": [condition]}}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        pytest.param(
            deployment(
                type="ReplicaFailure", status="True", message='pods "x" is forbidden: exceeded quota: gpus'
            ),
            Reason.QUOTA_EXCEEDED,
            id="a quota",
        ),
        pytest.param(
            deployment(type="ReplicaFailure", status="True", message="violates PodSecurity"),
            Reason.PODS_REFUSED,
            id="a policy",
        ),
        pytest.param(
            deployment(type="Progressing", status="False", reason="ProgressDeadlineExceeded", message="late"),
            Reason.DEADLINE_EXCEEDED,
            id="a rollout that is stuck",
        ),
    ],
)
def test_the_cause_is_found(given: dict[str, Any], reason: Reason) -> None:
    finding = diagnose_deployment(given)
    assert finding is not None
    assert finding.reason is reason


def test_a_healthy_deployment_has_no_finding() -> None:
    assert (
        diagnose_deployment(deployment(type="Progressing", status="True", reason="NewReplicaSetAvailable"))
        is None
    )
