"""What the replicas are doing, counted and diagnosed once for conditions and status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from stowage.api.conditions import Reason
from stowage.diagnosis.deployment import diagnose_deployment
from stowage.diagnosis.finding import Finding, Severity, worst
from stowage.diagnosis.pod import diagnose_pod, ended_at, has_run, is_bound, is_ready, ready_since
from stowage.engine.record import InForce
from stowage.engine.rollout import Rollout
from stowage.engine.scale_up import as_waiting, pool_waited_for
from stowage.engine.situation import Situation
from stowage.engine.wanted import wanted_replicas
from stowage.render.pod_template import template_hash
from stowage.world import PodReport

_SILENCE = timedelta(minutes=2)
# A node that rejects a pod rejects the next one too; after an eviction the replacement soon is the better news.
_REJECTION_IS_NEWS = timedelta(minutes=10)
_EVICTION_IS_NEWS = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class Serving:
    """The replicas of a target: how many are there, how many serve, whether they are all of the current template.

    `reports` come from every replica, `current_reports` from those of the target's template, which alone can be
    compared with its plan. `silent` names replicas that have served for a while without a report.
    """

    target: InForce
    rollout: Rollout
    wanted: int
    existing: int
    ready: int
    current: bool
    findings: tuple[Finding, ...]
    reports: tuple[PodReport, ...]
    current_reports: tuple[PodReport, ...]
    silent: tuple[str, ...]

    @property
    def problem(self) -> Finding | None:
        """The worst finding, if it is a problem."""
        finding = worst(self.findings)
        return finding if finding is not None and finding.severity is Severity.PROBLEM else None

    @property
    def progress(self) -> Finding | None:
        """What is still going on with the first pod that is not ready."""
        return next((item for item in self.findings if item.severity is Severity.PROGRESS), None)

    @property
    def complete(self) -> bool:
        """Whether every wanted replica serves from the current template and nothing older is left."""
        return self.current and self.ready == self.wanted == self.existing


def read_serving(situation: Situation, target: InForce, rollout: Rollout, now: datetime) -> Serving:
    """Count and diagnose the replicas."""
    pods = situation.world.pods
    reports = {item.pod_uid: item for item in situation.world.reports}
    ready_nodes = {room.facts.name for room in situation.world.inventory.nodes if room.facts.ready}
    pool = None if all(is_bound(pod) for pod in pods) else pool_waited_for(situation, target)
    findings = []
    for pod in pods:
        report = reports.get(_uid(pod))
        node_is_lost = is_bound(pod) and pod["spec"]["nodeName"] not in ready_nodes
        finding = diagnose_pod(pod, report.report if report else None, node_is_lost=node_is_lost)
        findings.append(finding if pool is None or is_bound(pod) else as_waiting(finding, pool))
    live = situation.deployment
    blocked = diagnose_deployment(live) if live is not None else None
    if blocked is not None:
        findings.append(blocked)
    if situation.world.refused is not None:
        message = f"The API server refuses an object of this deployment: {situation.world.refused}"
        findings.append(Finding(Severity.PROBLEM, Reason.APPLY_FAILED, message))
    ended = situation.world.ended_pod
    if ended is not None and sum(is_ready(pod) for pod in pods) < situation.replicas and _is_news(ended, now):
        findings.append(diagnose_pod(ended, None))
    known = {_uid(pod) for pod in pods}
    current = {_uid(pod) for pod in pods if template_hash(pod) == target.template_hash}
    return Serving(
        target=target,
        rollout=rollout,
        wanted=wanted_replicas(situation, target.plan),
        existing=sum(not pod["metadata"].get("deletionTimestamp") for pod in pods),
        ready=sum(is_ready(pod) for pod in pods),
        current=_is_current(situation, target),
        findings=tuple(findings),
        reports=tuple(item for item in situation.world.reports if item.pod_uid in known),
        current_reports=tuple(item for item in situation.world.reports if item.pod_uid in current),
        silent=tuple(
            pod["metadata"]["name"] for pod in pods if _uid(pod) not in reports and _served_long(pod, now)
        ),
    )


def _uid(pod: Mapping[str, Any]) -> str:
    return str(pod["metadata"].get("uid", ""))


def _is_news(ended: Mapping[str, Any], now: datetime) -> bool:
    """Whether the end of a pod still explains why replicas are missing."""
    return now - ended_at(ended) < (_EVICTION_IS_NEWS if has_run(ended) else _REJECTION_IS_NEWS)


def _served_long(pod: Mapping[str, Any], now: datetime) -> bool:
    """Whether a pod has been ready long enough for its agent to have been asked several times."""
    since = ready_since(pod)
    return since is not None and now - since > _SILENCE


def _is_current(situation: Situation, target: InForce) -> bool:
    """Whether the live Deployment is made from the target and every pod that stays is of its template."""
    record = situation.in_force
    if record is None or record.template_hash != target.template_hash:
        return False
    staying = (pod for pod in situation.world.pods if not pod["metadata"].get("deletionTimestamp"))
    return all(template_hash(pod) == target.template_hash for pod in staying)
