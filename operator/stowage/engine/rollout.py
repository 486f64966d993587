"""How many replicas may exist now, and how a changed template replaces them.

No replica is asked for that the snapshot has no place for. A new template starts its first replica beside the old ones
only where a spare place exists; otherwise it replaces in place, which frees the place first, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stowage.api.conditions import Reason
from stowage.diagnosis.pod import is_bound
from stowage.engine.room import own_room, released_room
from stowage.engine.situation import Situation
from stowage.engine.verdict import Verdict
from stowage.planning.placement import place_replicas
from stowage.planning.plan import Plan
from stowage.render.canonical import digest
from stowage.render.deployment import rolling_update


@dataclass(frozen=True, slots=True)
class Rollout:
    """`replicas` to render, the update strategy, and what to say about it.

    `held` is set when the new template must wait (a Surge was asked for and nothing is free).
    """

    replicas: int
    strategy: Mapping[str, Any]
    able_to_scale: Verdict
    progress: Verdict | None = None
    held: bool = False


def decide_rollout(
    situation: Situation, plan: Plan, template: Mapping[str, Any], strategy_wish: str
) -> Rollout:
    """Decide replicas and strategy for the target template."""
    replicas, able = _placeable_replicas(situation, plan)
    live = situation.deployment
    if live is None:
        return Rollout(replicas, rolling_update(0), able)
    if situation.in_force is not None and digest(situation.in_force.template) == digest(template):
        return Rollout(replicas, live["spec"]["strategy"], able)
    return _replace(situation, plan, replicas, able, strategy_wish)


def _replace(situation: Situation, plan: Plan, replicas: int, able: Verdict, strategy_wish: str) -> Rollout:
    running = any(is_bound(pod) for pod in situation.world.pods)
    spare = running and bool(place_replicas(plan, own_room(situation), 1))
    if strategy_wish == "Surge" and running and not spare:
        message = (
            "The new template waits: spec.rollout.strategy is Surge and no spare place exists for a replica."
        )
        wait = Verdict(True, Reason.WAITING_FOR_SPARE_GPUS, message)
        return Rollout(replicas, rolling_update(1), able, wait, held=True)
    if spare and strategy_wish != "InPlace":
        return Rollout(replicas, rolling_update(1), able)
    return Rollout(replicas, rolling_update(0), able)


def replacing_in_place(situation: Situation) -> bool:
    """Whether the live Deployment replaces its replicas in place."""
    live = situation.deployment
    if live is None:
        return False
    surge = (live["spec"].get("strategy") or {}).get("rollingUpdate", {}).get("maxSurge", 0)
    return surge in (0, "0", "0%")


def _placeable_replicas(situation: Situation, plan: Plan) -> tuple[int, Verdict]:
    wanted = situation.replicas
    room = released_room(situation)
    places = place_replicas(plan, room, wanted + 1)
    bound = sum(is_bound(pod) for pod in situation.world.pods)
    possible = max(len(places), bound)
    if possible > wanted:
        return wanted, Verdict(True, Reason.READY_FOR_NEW_SCALE, "There is a place for another replica.")
    what = f"{plan.gpus_per_replica} x {plan.gpu_product}" if plan.gpu_product else "CPU and memory"
    if possible == wanted:
        message = f"No place is left for a further replica ({what} each on one node)."
    else:
        message = (
            f"{wanted} replicas are asked for and {possible} can be placed ({what} each on one node); "
            f"add nodes, free GPUs or lower spec.replicas."
        )
    reason = Reason.INSUFFICIENT_GPUS if plan.gpu_product else Reason.INSUFFICIENT_NODE_RESOURCES
    return min(wanted, possible), Verdict(False, reason, message)
