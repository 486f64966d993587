"""What a namespace's ResourceQuota leaves for pods of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from stowage.hardware.gpu_identity import NVIDIA_GPU
from stowage.hardware.resources import Resources, parse_resources

# A quota with other scopes binds only some pods (by priority class, best effort, deadline), not plainly ours.
_GENERAL_SCOPES: Final = frozenset({"NotBestEffort", "NotTerminating"})


@dataclass(frozen=True, slots=True)
class QuotaRoom:
    """What a ResourceQuota leaves: hard − used per key, CPU in millicores, everything else in base units."""

    namespace: str
    name: str
    room: Mapping[str, int]

    def pods_that_fit(self, requests: Resources) -> int | None:
        """How many pods with these requests the quota admits; None if it does not limit them."""
        limits = [
            max(0, left) // amount
            for key, left in self.room.items()
            if (amount := _charged(key, requests)) > 0
        ]
        return min(limits) if limits else None

    def lacking(self, requests: Resources) -> str | None:
        """Name the first key that one such pod would exceed, or None."""
        return next(
            (key for key, left in sorted(self.room.items()) if _charged(key, requests) > max(0, left)), None
        )

    def credited(self, given_back: Resources) -> QuotaRoom:
        """The quota when pods with these requests in all are gone."""
        return replace(self, room={key: left + _charged(key, given_back) for key, left in self.room.items()})


def quota_room(quota: Mapping[str, Any]) -> QuotaRoom:
    """Read a ResourceQuota; keys that no pod of ours counts against are kept but match nothing."""
    metadata, spec, status = quota.get("metadata") or {}, quota.get("spec") or {}, quota.get("status") or {}
    scopes = {str(scope) for scope in spec.get("scopes") or ()}
    general = scopes <= _GENERAL_SCOPES and not spec.get("scopeSelector")
    hard = status.get("hard") or spec.get("hard") or {}
    used = status.get("used") or {}
    room = {
        key: _quota_amount(key, hard[key]) - _quota_amount(key, used.get(key, 0)) for key in hard if general
    }
    return QuotaRoom(str(metadata.get("namespace") or "default"), str(metadata.get("name", "")), room)


def _quota_amount(key: str, value: Any) -> int:
    if key in ("cpu", "requests.cpu", "limits.cpu"):
        return parse_resources({"cpu": value}).cpu_millicores
    return parse_resources({"amount": value}).count("amount")


def _charged(key: str, requests: Resources) -> int:
    """Tell what one such pod counts against a quota key; 0 for keys that do not concern it."""
    if key in ("pods", "count/pods"):
        return requests.pods
    if key in ("cpu", "requests.cpu"):
        return requests.cpu_millicores
    if key in ("memory", "requests.memory"):
        return requests.memory_bytes
    if key == f"requests.{NVIDIA_GPU}":
        return requests.count(NVIDIA_GPU)
    return requests.count(key.removeprefix("requests.")) if key.startswith("requests.") else 0
