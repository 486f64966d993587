"""What a GPU costs per hour: the user's own prices first, then a table of defaults that is marked as such.

A GPU without a price is ranked by the memory it is sold with, at the median price per gigabyte of the GPUs that have
one, and its costs are shown in GPU-hours: a price is never made up and shown as money.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from math import isfinite
from statistics import median
from typing import Any, Final

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.hardware.catalog import find_gpu, nearest_names
from stowage.hardware.gpu import Gpu

GPU_HOURS: Final = "GPU-hours"
"""The unit of a cost where the GPU has no price."""

_NOMINAL_STEP_BYTES: Final = 4 * 2**30


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices per GPU-hour by the GPU's name in the catalog, in one currency.

    `defaults` are the names whose price nobody stated. An empty table is allowed: then nothing costs money, and
    GPUs are ranked by their memory alone.
    """

    per_gpu_hour: Mapping[str, float] = field(default_factory=dict)
    currency: str = "USD"
    defaults: frozenset[str] = frozenset()

    def of(self, gpu: Gpu) -> float | None:
        """Give the price of one GPU for one hour, None where there is none."""
        return self.per_gpu_hour.get(gpu.name)

    def rank(self, gpu: Gpu) -> float:
        """Give what GPUs are compared by: the price, else an estimate from the memory that is never shown."""
        price = self.of(gpu)
        return nominal_gigabytes(gpu) * self._per_gigabyte() if price is None else price

    def _per_gigabyte(self) -> float:
        return _median_per_gigabyte(tuple(sorted(self.per_gpu_hour.items())))


def nominal_gigabytes(gpu: Gpu) -> int:
    """Give the memory size that the card is sold with: NVML's total rounded up to a multiple of 4 GiB."""
    return -(-gpu.nvml_memory_bytes // _NOMINAL_STEP_BYTES) * 4


@cache
def default_prices() -> Prices:
    """Give the table of defaults (prices.toml): list prices, one source for each row."""
    text = files("stowage.planning").joinpath("prices.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    prices = {name: float(row[0]) for name, row in table["price"].items()}
    return Prices(prices, table["currency"], frozenset(prices))


def read_prices(document: Any) -> Prices | Refusal:
    """Read `{currency: USD, perGpuHour: {NVIDIA-L4: 0.7}}`; GPUs that it does not name keep their default.

    GPUs may be named as people say them ("h100"). With a currency other than that of the defaults only the stated
    prices hold, since amounts in two currencies cannot be compared.
    """
    if not isinstance(document, Mapping) or not isinstance(document.get("perGpuHour"), Mapping):
        message = "A price table needs perGpuHour, a map from GPU names to prices per hour."
        return Refusal(
            Reason.INVALID_SPEC, message, "For example: {currency: USD, perGpuHour: {NVIDIA-L4: 0.7}}."
        )
    currency = str(document.get("currency") or default_prices().currency)
    stated: dict[str, float] = {}
    for name, price in document["perGpuHour"].items():
        gpu, refusal = find_gpu(str(name)), _refusal(str(name), price)
        if refusal is not None or gpu is None:
            return refusal or _unknown(str(name))
        stated[gpu.name] = float(price)
    if currency != default_prices().currency:
        return Prices(stated, currency)
    merged = {**default_prices().per_gpu_hour, **stated}
    return Prices(merged, currency, frozenset(merged) - frozenset(stated))


def _refusal(name: str, price: Any) -> Refusal | None:
    if find_gpu(name) is None:
        return _unknown(name)
    if isinstance(price, bool) or not isinstance(price, (int, float)) or not isfinite(price) or price < 0:
        message = f"The price of {name} is {price!r}, which is not a number of at least 0."
        return Refusal(Reason.INVALID_SPEC, message, "State the price of one GPU for one hour.")
    return None


def _unknown(name: str) -> Refusal:
    near = ", ".join(nearest_names(name))
    message = f"The price table names {name}, which is not a GPU that this version knows."
    return Refusal(Reason.UNKNOWN_GPU, message, f"Did you mean {near}?" if near else "Remove the line.")


@cache
def _median_per_gigabyte(prices: tuple[tuple[str, float], ...]) -> float:
    known = [
        price / nominal_gigabytes(gpu)
        for name, price in prices
        if price > 0 and (gpu := find_gpu(name)) is not None
    ]
    return median(known) if known else 1.0
