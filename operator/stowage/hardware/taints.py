"""Taints and tolerations, matched as the Kubernetes scheduler matches them.

Only effects that keep a pod off a node count: PreferNoSchedule is a wish, not a rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

_HARD_EFFECTS: Final = frozenset({"NoSchedule", "NoExecute"})


@dataclass(frozen=True, slots=True)
class Taint:
    """A node's taint, as in its spec."""

    key: str
    value: str
    effect: str

    def __str__(self) -> str:
        return f"{self.key}={self.value}:{self.effect}" if self.value else f"{self.key}:{self.effect}"


@dataclass(frozen=True, slots=True)
class Toleration:
    """A pod's toleration; `key` "" with Exists tolerates every key, `effect` "" every effect."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""

    def tolerates(self, taint: Taint) -> bool:
        """Whether a pod with this toleration may be placed on a node with this taint."""
        if self.effect and self.effect != taint.effect:
            return False
        if self.operator == "Exists":
            return self.key in ("", taint.key)
        return self.key == taint.key and self.value == taint.value


GPU_TOLERATION: Final = Toleration("nvidia.com/gpu", "Exists", "", "NoSchedule")
"""What every pod that asks for GPUs carries, since GPU nodes are commonly tainted with nvidia.com/gpu."""


def untolerated(taints: Iterable[Taint], tolerations: Sequence[Toleration]) -> Taint | None:
    """Find the first taint that keeps the pod off the node, or None."""
    for taint in taints:
        if taint.effect in _HARD_EFFECTS and not any(each.tolerates(taint) for each in tolerations):
            return taint
    return None


def parse_taints(node: Mapping[str, Any]) -> tuple[Taint, ...]:
    """Read the taints of a raw Node."""
    raw = (node.get("spec") or {}).get("taints") or ()
    return tuple(
        Taint(str(t.get("key", "")), str(t.get("value") or ""), str(t.get("effect", ""))) for t in raw
    )


def parse_tolerations(raw: Iterable[Mapping[str, Any]]) -> tuple[Toleration, ...]:
    """Read the tolerations of a raw pod spec."""
    return tuple(
        Toleration(
            str(each.get("key") or ""),
            str(each.get("operator") or "Equal"),
            str(each.get("value") or ""),
            str(each.get("effect") or ""),
        )
        for each in raw
    )
