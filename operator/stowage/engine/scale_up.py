"""Replicas that wait for a node pool to grow: the plan counted on that, so waiting is progress, not a problem.

Whether the pool does grow is not known here. Where it can no longer, a place is missing and the plan is made anew;
where it should and does not, the Deployment's own deadline says so.
"""

from __future__ import annotations

from dataclasses import replace

from stowage.api.conditions import Reason
from stowage.diagnosis.finding import Finding, Severity
from stowage.engine.record import InForce
from stowage.engine.room import own_room
from stowage.engine.situation import Situation
from stowage.hardware.pools import pool_of
from stowage.planning.placement import place_replicas


def pool_waited_for(situation: Situation, target: InForce) -> str | None:
    """The pool that has to grow for the next replica to have a place; None where a place exists, or none ever will."""
    if not target.plan.placement.pools:
        return None
    names = place_replicas(target.plan, own_room(situation), 1)
    return pool_of(names[0]) if names else None


def as_waiting(finding: Finding, pool: str) -> Finding:
    """Tell a pod that no node can take yet as one that waits for the pool; every other finding stays as it is."""
    if finding.reason is not Reason.UNSCHEDULABLE or finding.severity is not Severity.PROBLEM:
        return finding
    message = f"{finding.message.rstrip('.')}. The plan counts on the pool {pool} to grow by a node."
    return replace(finding, severity=Severity.PROGRESS, reason=Reason.SCHEDULING, message=message)
