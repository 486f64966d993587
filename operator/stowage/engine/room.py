"""The snapshot's free places as one LLMDeployment sees them.

`own_room` is what is free beside its own running replicas; `released_room` counts the places of those replicas as
free too, since a replacement may take them over.
"""

from __future__ import annotations

from stowage.diagnosis.pod import is_bound
from stowage.engine.situation import Situation
from stowage.hardware.inventory import Inventory, pod_usage, release


def own_room(situation: Situation) -> Inventory:
    """Free places while every running replica stays; pods without a node hold quota but no place."""
    unbound = [pod_usage(pod) for pod in situation.world.pods if not is_bound(pod)]
    return release(situation.world.inventory, unbound)


def released_room(situation: Situation) -> Inventory:
    """Free places if every replica of this LLMDeployment were stopped."""
    return release(situation.world.inventory, [pod_usage(pod) for pod in situation.world.pods])
