"""The estimated constants as numbers with a range, read from estimates.toml.

Everything that is not exact comes through here, so that each band has one place where it is stated and
sourced.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

_MIB: Final = 2**20


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with the range that it lies in; units are those of the value."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> Estimate:
        """Multiply value and range by a factor of at least 0."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor)

    def plus(self, other: Estimate) -> Estimate:
        """Add another estimate; ranges add up, as both may err to the same side."""
        return Estimate(self.value + other.value, self.low + other.low, self.high + other.high)


NOTHING: Final = Estimate(0.0, 0.0, 0.0)


@cache
def _table() -> dict[str, Any]:
    text = files("stowage.memory").joinpath("estimates.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


@cache
def sampler_bytes_per_logit(kind: str) -> Estimate:
    """Give the transient bytes per (request × vocabulary entry) of a sampler, by its row in the table."""
    row = _table()["sampler"][kind]
    return Estimate(row["transient_bytes_per_logit"], row["low"], row["high"])


@cache
def gathered_bytes_per_logit() -> float:
    """Give the bytes per logit that gathering over tensor-parallel ranks adds."""
    return float(_table()["gathered_logits"]["transient_bytes_per_logit"])


@cache
def v2_state_bytes_per_logit() -> float:
    """Give the bytes per logit that the V2 runner keeps for penalties and masks."""
    return float(_table()["v2_state"]["persistent_bytes_per_logit"])


@cache
def dense_activation_band() -> float:
    """Give the relative uncertainty of the layer activation formula."""
    return float(_table()["dense_activation"]["relative_band"])


@cache
def moe_activation_band() -> float:
    """Give the relative uncertainty of the workspaces of experts."""
    return float(_table()["moe_activation"]["relative_band"])


@cache
def allocates_for_itself(architecture: str, compute_capability: tuple[int, int]) -> bool:
    """Whether the kernels of an architecture's experts take memory of their own instead of the shared workspace."""
    row = _table()["moe_activation"]
    name = f"{compute_capability[0]}.{compute_capability[1]}"
    return architecture in row["own_memory"] and name in row["own_memory_capabilities"]


@cache
def compressed_attention_band() -> Estimate:
    """Give the factors around the peak of a layer with compressed latent attention."""
    row = _table()["compressed_attention"]
    return Estimate(1.0, row["low_factor"], row["high_factor"])


@cache
def encoder_activation_band() -> Estimate:
    """Give the factors around the formula of an encoder's working memory."""
    row = _table()["encoder_activation"]
    return Estimate(1.0, row["low_factor"], row["high_factor"])


@cache
def library_workspace_bytes(compute_capability: tuple[int, int]) -> Estimate:
    """Give what matrix libraries take of the allocator for good, the first time that they run."""
    row = _table()["library_workspace"]
    return _mebibytes(row) if compute_capability[0] in row["compute_capability_major"] else NOTHING


@cache
def context_bytes() -> Estimate:
    """Give the bytes of one CUDA context."""
    return _mebibytes(_table()["context"])


@cache
def nccl_bytes(world_size: int, multicasts: bool = False) -> Estimate:
    """Give the bytes that communicators take on one rank; `multicasts`: they use switches that do."""
    if world_size < 2:
        return NOTHING
    return _mebibytes(_table()["nccl"]["multicast" if multicasts else _class(world_size)])


@cache
def non_torch_growth_bytes(world_size: int) -> Estimate:
    """Give the bytes outside the allocator that appear between the snapshot and the end of profiling."""
    return _mebibytes(_table()["non_torch"][_class(world_size)])


@cache
def trial_capture_bytes() -> Estimate:
    """Give the bytes that trial captures of CUDA graphs leave outside the allocator."""
    return _mebibytes(_table()["trial_capture"])


@cache
def shares_host_memory(compute_capability: tuple[int, int]) -> bool:
    """Whether GPUs of this capability have no memory of their own."""
    name = f"{compute_capability[0]}.{compute_capability[1]}"
    return name in _table()["unified"]["compute_capabilities"]


@cache
def unified_growth_bytes(compute_capability: tuple[int, int]) -> Estimate:
    """Give what host processes take between the engine's looks at a memory that GPU and host share."""
    return _mebibytes(_table()["unified"]) if shares_host_memory(compute_capability) else NOTHING


@cache
def graph_bytes_per_size() -> Estimate:
    """Give the bytes of one captured size of a 32-layer model."""
    row = _table()["cuda_graphs"]
    each = row["mib_per_size"] * _MIB
    return Estimate(each, each * row["low_factor"], each * row["high_factor"])


@cache
def host_overhead_bytes() -> Estimate:
    """Give the resident bytes of the engine's processes on a CPU node, without weights and KV cache."""
    row = _table()["host"]
    return Estimate(row["overhead_mib"] * _MIB, row["low_mib"] * _MIB, row["high_mib"] * _MIB)


def _class(world_size: int) -> str:
    if world_size == 1:
        return "one"
    return "few" if world_size < 8 else "many"


def _mebibytes(row: dict[str, Any]) -> Estimate:
    return Estimate(row["mib"] * _MIB, row["low_mib"] * _MIB, row["high_mib"] * _MIB)
