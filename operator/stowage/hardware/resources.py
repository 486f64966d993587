"""Kubernetes quantities and amounts of resources, exactly as the scheduler counts them.

Quantities are parsed into exact fractions and rounded up only once, to the unit that Kubernetes itself
accounts in (millicores, bytes, whole devices). Nothing here may use floating point: a request that fits by
rounding error is a pod that stays Pending.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from math import ceil
from types import MappingProxyType
from typing import Any, Final

_QUANTITY: Final = re.compile(
    r"(?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+))"
    r"(?:[eE](?P<exponent>[+-]?\d+)|(?P<suffix>[KMGTPE]i|[numkMGTPE]))?",
    re.ASCII,
)
_SUFFIXES: Final[Mapping[str, Fraction]] = {
    **{unit: Fraction(1000) ** power for power, unit in enumerate(("", "k", "M", "G", "T", "P", "E"))},
    **{f"{unit}i": Fraction(1024) ** power for power, unit in enumerate("KMGTPE", start=1)},
    "m": Fraction(1, 10**3),
    "u": Fraction(1, 10**6),
    "n": Fraction(1, 10**9),
}
_NONE: Final[Mapping[str, int]] = MappingProxyType({})


class QuantityError(ValueError):
    """A text that is not a Kubernetes quantity; the message is one sentence for people."""


def parse_quantity(value: str | int | float) -> Fraction:
    """Parse a Kubernetes quantity (`500m`, `1.5Gi`, `2e3`, `100k`) into an exact number of its base unit.

    Raises QuantityError for anything else. Grammar: apimachinery, resource.Quantity.
    """
    text = str(value).strip()
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise QuantityError(
            f"'{text}' is not a Kubernetes quantity; write a number with a unit, as in 500m, 4 or 16Gi."
        )
    number = Fraction(match["number"])
    if match["exponent"] is not None:
        return number * Fraction(10) ** int(match["exponent"])
    return number * _SUFFIXES[match["suffix"] or ""]


@dataclass(frozen=True, slots=True)
class Resources:
    """Amounts of what a node offers or a pod asks for.

    `cpu_millicores` in thousandths of a core, `memory_bytes` in bytes, `pods` in pod slots; `extended`
    holds every other resource by its Kubernetes name (GPUs in devices, ephemeral-storage in bytes, …).
    """

    cpu_millicores: int = 0
    memory_bytes: int = 0
    pods: int = 0
    extended: Mapping[str, int] = field(default_factory=lambda: _NONE)

    def count(self, resource: str) -> int:
        """Give the amount of one extended resource; 0 where it is not mentioned."""
        return self.extended.get(resource, 0)

    def plus(self, other: Resources) -> Resources:
        """Add the amounts of both."""
        return self._combine(other, 1)

    def minus(self, other: Resources) -> Resources:
        """Subtract; the rest may be negative where a node is overcommitted."""
        return self._combine(other, -1)

    def times(self, factor: int) -> Resources:
        """Give the amounts of `factor` pods."""
        return Resources(
            self.cpu_millicores * factor,
            self.memory_bytes * factor,
            self.pods * factor,
            {name: amount * factor for name, amount in self.extended.items()},
        )

    def at_least(self, other: Resources) -> Resources:
        """Take the greater amount of the two, resource by resource."""
        names = {**self.extended, **other.extended}
        return Resources(
            max(self.cpu_millicores, other.cpu_millicores),
            max(self.memory_bytes, other.memory_bytes),
            max(self.pods, other.pods),
            {name: max(self.count(name), other.count(name)) for name in names},
        )

    def fits(self, room: Resources) -> bool:
        """Whether a pod that asks for this can be placed where `room` is free."""
        return not self.lacking(room)

    def lacking(self, room: Resources) -> tuple[str, ...]:
        """Name the resources of which `room` has too little; what is not asked for never lacks."""
        pairs = [
            ("cpu", self.cpu_millicores, room.cpu_millicores),
            ("memory", self.memory_bytes, room.memory_bytes),
            ("pods", self.pods, room.pods),
            *((name, amount, room.count(name)) for name, amount in sorted(self.extended.items())),
        ]
        return tuple(name for name, asked, free in pairs if asked > 0 and asked > free)

    def _combine(self, other: Resources, sign: int) -> Resources:
        names = {**self.extended, **other.extended}
        return Resources(
            self.cpu_millicores + sign * other.cpu_millicores,
            self.memory_bytes + sign * other.memory_bytes,
            self.pods + sign * other.pods,
            {name: self.count(name) + sign * other.count(name) for name in names},
        )


def parse_resources(amounts: Mapping[str, Any] | None) -> Resources:
    """Read a Kubernetes resource list (`{"cpu": "500m", "nvidia.com/gpu": "1"}`).

    Every amount is rounded up to the unit that the scheduler counts in. Raises QuantityError naming the
    resource.
    """
    parsed: dict[str, int] = {}
    for name, value in (amounts or {}).items():
        try:
            parsed[name] = _units(str(value), 1000 if name == "cpu" else 1)
        except QuantityError as error:
            raise QuantityError(f"Resource {name}: {error}") from None
    return Resources(
        parsed.pop("cpu", 0), parsed.pop("memory", 0), parsed.pop("pods", 0), dict(sorted(parsed.items()))
    )


@lru_cache(maxsize=4096)
def _units(text: str, per_unit: int) -> int:
    """Round up to whole units; the same few texts stand in thousands of pods."""
    return ceil(parse_quantity(text) * per_unit)


def total(amounts: Iterable[Resources]) -> Resources:
    """Add the amounts of many."""
    cpu_millicores = memory_bytes = pods = 0
    extended: dict[str, int] = {}
    for amount in amounts:
        cpu_millicores += amount.cpu_millicores
        memory_bytes += amount.memory_bytes
        pods += amount.pods
        for name, count in amount.extended.items():
            extended[name] = extended.get(name, 0) + count
    return Resources(cpu_millicores, memory_bytes, pods, extended)
