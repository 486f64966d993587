"""What the replicas are doing, counted and diagnosed once for conditions and status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stowage.api.conditions import Reason
from stowage.diagnosis.deployment import diagnose_deployment
from stowage.diagnosis.finding import Finding, Severity, worst
from stowage.diagnosis.pod import diagnose_pod, is_ready
from stowage.engine.record import InForce
from stowage.engine.rollout import Rollout
from stowage.engine.situation import Situation
from stowage.render import names
from stowage.world import PodReport


@dataclass(frozen=True, slots=True)
class Serving:
    """The replicas of a target: how many are there, how many serve, whether they are all of the current template."""

    target: InForce
    rollout: Rollout
    wanted: int
    existing: int
    ready: int
    current: bool
    findings: tuple[Finding, ...]
    reports: tuple[PodReport, ...]

    @property
    def problem(self) -> Finding | None:
        """The worst finding, if it is a problem."""
        finding = worst(self.findings)
        return finding if finding is not None and finding.severity is Severity.PROBLEM else None

    @property
    def progress(self) -> Finding | None:
        """What is still going on, the furthest-behind pod first."""
        return next((item for item in self.findings if item.severity is Severity.PROGRESS), None)

    @property
    def complete(self) -> bool:
        """Whether every wanted replica serves from the current template and nothing older is left."""
        return self.current and self.ready == self.wanted == self.existing


def read_serving(situation: Situation, target: InForce, rollout: Rollout) -> Serving:
    """Count and diagnose the replicas."""
    pods = situation.world.pods
    reports = {item.pod_uid: item for item in situation.world.reports}
    findings = []
    for pod in pods:
        report = reports.get(pod["metadata"].get("uid", ""))
        findings.append(diagnose_pod(pod, report.report if report else None))
    live = situation.deployment
    blocked = diagnose_deployment(live) if live is not None else None
    if blocked is not None:
        findings.append(blocked)
    if situation.world.refused is not None:
        message = f"The API server refuses an object of this deployment: {situation.world.refused}"
        findings.append(Finding(Severity.PROBLEM, Reason.APPLY_FAILED, message))
    uids = {pod["metadata"].get("uid", "") for pod in pods}
    return Serving(
        target=target,
        rollout=rollout,
        wanted=situation.replicas,
        existing=sum(not pod["metadata"].get("deletionTimestamp") for pod in pods),
        ready=sum(is_ready(pod) for pod in pods),
        current=_is_current(situation, target),
        findings=tuple(findings),
        reports=tuple(item for item in situation.world.reports if item.pod_uid in uids),
    )


def _is_current(situation: Situation, target: InForce) -> bool:
    """Whether the live Deployment is made from the target and every pod that stays is of its template."""
    record = situation.in_force
    if record is None or record.template != target.template:
        return False
    wanted = _template_hash(target.template)
    staying = (pod for pod in situation.world.pods if not pod["metadata"].get("deletionTimestamp"))
    return all(_template_hash(pod) == wanted for pod in staying)


def _template_hash(obj: Mapping[str, Any]) -> str | None:
    annotations = obj["metadata"].get("annotations") or {}
    return annotations.get(names.TEMPLATE_HASH_ANNOTATION)
