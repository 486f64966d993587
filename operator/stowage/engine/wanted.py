"""How many replicas are wanted: what spec.replicas asks for, and no fewer than the stated rate takes.

A rate states what the whole deployment must take, so fewer replicas than it needs are never run while it is stated,
whoever wrote spec.replicas; zero is still zero, and more are always obeyed.
"""

from __future__ import annotations

from stowage.api.refusal import Refusal
from stowage.engine.situation import Situation
from stowage.planning.plan import Plan


def wanted_replicas(situation: Situation, plan: Plan) -> int:
    """Give the replicas of a plan that should run."""
    spec, asked = situation.spec, situation.replicas
    if asked == 0 or isinstance(spec, Refusal) or spec.workload.requests_per_second is None:
        return asked
    return max(asked, plan.replicas)
