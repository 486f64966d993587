"""The one function that plans, and the names that go with it.

`plan()` is the same for the operator, the command line and what-if questions. It never raises for a wish
that cannot be fulfilled: it answers with a refusal, every rejected option and what would have to change.
"""

from __future__ import annotations

from dataclasses import replace

from stowage.api.v1alpha1 import HardwareClass
from stowage.hardware.inventory import Inventory
from stowage.planning.cpu_search import plan_on_cpus
from stowage.planning.placement import place_replicas
from stowage.planning.result import Alternative, Placement, Plan, PlanRequest, PlanResult, Rejection
from stowage.planning.search import plan_on_gpus
from stowage.planning.settings import EngineSettings
from stowage.planning.sticky import still_fits

__all__ = [
    "Alternative",
    "EngineSettings",
    "Placement",
    "Plan",
    "PlanRequest",
    "PlanResult",
    "Rejection",
    "plan",
]


def plan(request: PlanRequest, inventory: Inventory) -> PlanResult:
    """Choose the cheapest shape that holds what is asked for and has a place in the snapshot, and explain it.

    With `request.in_force` that plan is kept as long as it fits: only its placement is made anew.
    """
    if request.in_force is not None and still_fits(request.in_force, request, inventory) is None:
        return PlanResult(_placed_anew(request.in_force, request, inventory))
    if request.spec.hardware.hardware_class is HardwareClass.CPU:
        return plan_on_cpus(request, inventory)
    return plan_on_gpus(request, inventory)


def _placed_anew(kept: Plan, request: PlanRequest, inventory: Inventory) -> Plan:
    names = place_replicas(kept, inventory, max(1, request.replicas))
    return replace(kept, placement=replace(kept.placement, node_names=names))
