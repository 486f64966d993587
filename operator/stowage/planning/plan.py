"""The one function that plans, and the names that go with it.

`plan()` is the same for the operator, the command line and what-if questions. It never raises for a wish
that cannot be fulfilled: it answers with a refusal, every rejected option and what would have to change.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from stowage.api.v1alpha1 import HardwareClass
from stowage.hardware.inventory import Inventory
from stowage.hardware.on_request import with_requested
from stowage.model.profile import ModelProfile
from stowage.planning.result import Alternative, Placement, Plan, PlanRequest, PlanResult, Rejection
from stowage.planning.search.cpu import plan_on_cpus
from stowage.planning.search.gpu import plan_on_gpus
from stowage.planning.settings import EngineSettings

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
    """Choose the cheapest shape that holds what is asked for and has a place in the snapshot, and explain it."""
    request = replace(
        request,
        profile=_known(request.profile),
        alternatives=tuple(replace(each, profile=_known(each.profile)) for each in request.alternatives),
    )
    if request.spec.hardware.hardware_class is HardwareClass.CPU:
        return plan_on_cpus(request, inventory)
    return plan_on_gpus(request, with_requested(inventory, request.spec.hardware.gpus))


@lru_cache(maxsize=64)
def _known(profile: ModelProfile) -> ModelProfile:
    """Give the first profile that was equal to this one.

    What is remembered of a model is found by its profile; comparing two of them whole at every look-up would take
    longer than planning.
    """
    return profile
