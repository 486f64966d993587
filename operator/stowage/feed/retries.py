"""When a model that could not be read is worth another try.

What only an edit can cure is not retried: the next generation asks anew. What lies outside the cluster or in an object
that nobody watches is tried again, slower each time where the other side may be overloaded. A pod that cannot start
is looked at again soon and always as soon: that costs nothing, and it starts by itself once its cause is gone.
"""

from __future__ import annotations

from collections.abc import Mapping

from stowage.api.conditions import Reason

_FIRST_SECONDS: Mapping[Reason, float] = {
    Reason.HUB_UNREACHABLE: 5.0,
    Reason.HUB_RATE_LIMITED: 30.0,
    Reason.INSPECTION_FAILED: 30.0,
    Reason.CONFIG_MAP_MISSING: 10.0,
    Reason.INVALID_CONFIG_MAP: 30.0,
    Reason.MODEL_ACCESS_DENIED: 300.0,
    Reason.MODEL_NOT_FOUND: 300.0,
    Reason.REVISION_NOT_FOUND: 300.0,
}
_POD_REASONS = frozenset(
    {
        Reason.UNSCHEDULABLE,
        Reason.IMAGE_PULL_FAILED,
        Reason.SECRET_MISSING,
        Reason.VOLUME_CLAIM_MISSING,
        Reason.CRASH_LOOPING,
        Reason.EVICTED,
        Reason.NODE_LOST,
    }
)
_POD_SECONDS = 15.0
_MAXIMUM_SECONDS = 600.0


def retry_seconds(reason: Reason, failures: int) -> float | None:
    """Seconds until the next try after `failures` in a row (at least one); None when only an edit can help."""
    if reason in _POD_REASONS:
        return _POD_SECONDS
    first = _FIRST_SECONDS.get(reason)
    if first is None:
        return None
    return min(first * 2.0 ** min(failures - 1, 16), _MAXIMUM_SECONDS)
