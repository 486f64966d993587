"""How long a server may take to start and to stop.

The start-up budget follows the bytes that must be fetched and loaded, so that a probe never kills a slow but healthy
loader; `runtime.startupTimeout` overrides it.
"""

from __future__ import annotations

from stowage.api.duration import parse_duration_seconds
from stowage.api.v1alpha1 import LLMDeploymentSpec
from stowage.planning.plan import Plan

# Deliberately pessimistic: a shared link to the Hub and a network disk. A budget is not an estimate.
FETCH_BYTES_PER_SECOND = 50e6
FIXED_STARTUP_SECONDS = 900
PRE_STOP_SECONDS = 10
DRAIN_SECONDS = 60
GRACE_MARGIN_SECONDS = 20


def startup_timeout_seconds(spec: LLMDeploymentSpec, plan: Plan) -> int:
    """Seconds from the start of the container until the first completion must have succeeded."""
    if spec.runtime.startup_timeout:
        return int(parse_duration_seconds(spec.runtime.startup_timeout))
    checkpoint_bytes = plan.ledger.weights_bytes * plan.settings.tensor_parallel_size
    return FIXED_STARTUP_SECONDS + int(checkpoint_bytes / FETCH_BYTES_PER_SECOND)


def drain_timeout_seconds() -> int:
    """Seconds that running requests get to finish once the pod has been asked to stop."""
    return DRAIN_SECONDS


def termination_grace_period_seconds() -> int:
    """PreStop pause, drain, and a margin for the engine's own shutdown."""
    return PRE_STOP_SECONDS + DRAIN_SECONDS + GRACE_MARGIN_SECONDS
