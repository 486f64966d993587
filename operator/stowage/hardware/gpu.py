"""One model of GPU: what it can hold, how fast it is, and where each number comes from.

Figures are dense peaks of one device. Memory appears twice on purpose: what the driver reports (NVML, what
node labels carry) and what CUDA lets a process see (what an engine multiplies its utilisation with). The
two must never be mixed up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where a number comes from: a key of the source table, and the day it was compared ("" if never)."""

    source: str
    checked: str


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU model. All amounts are of one device.

    `name` is the product label that GPU feature discovery writes. `nvml_memory_bytes` is the driver's
    total, `cuda_total_bytes` what CUDA reports as total; `cuda_total_measured` says whether the latter was
    read from a real device or estimated from the former. `bf16_flops` is None on devices without bfloat16;
    `fp16_flops` always holds; `fp8_flops`, `int8_ops` (operations per second) and `fp4_flops` are None where the
    matrix units lack that format. `integer_ops` is what the ordinary units do in a second, which widen weights
    of few bits. `link` names how devices of one node reach each other and
    `link_bytes_per_second` is its speed for one GPU in one direction. `evidence` has the origin of every
    number by its field name in the catalog.
    """

    name: str
    aliases: tuple[str, ...]
    vendor: str
    nvml_memory_bytes: int
    cuda_total_bytes: int
    cuda_total_measured: bool
    compute_capability: tuple[int, int]
    bf16_flops: int | None
    fp16_flops: int
    fp8_flops: int | None
    memory_bytes_per_second: int
    link: str
    link_bytes_per_second: int
    int8_ops: int | None = None
    fp4_flops: int | None = None
    integer_ops: int = 0
    evidence: Mapping[str, Evidence] = field(default_factory=dict, compare=False)

    @property
    def has_bf16(self) -> bool:
        """Whether the device computes in bfloat16."""
        return self.bf16_flops is not None

    @property
    def has_fast_link(self) -> bool:
        """Whether devices of a node reach each other by a link of their own, not through the host's PCIe."""
        return self.link.startswith(("NVLink", "Infinity Fabric"))

    @property
    def has_switch(self) -> bool:
        """Whether devices of a node reach each other through switches, and not by links from one to the next."""
        return self.link == "NVLink" or self.link.startswith("NVLink (")

    @property
    def link_reach(self) -> int | None:
        """How many devices the link joins where it does not join all of a node: bridges reach two or four."""
        if "bridge" not in self.link:
            return None
        return 2 if "pairs" in self.link else 4

    @property
    def ridge_flops_per_byte(self) -> float:
        """Arithmetic intensity above which 16-bit work is bound by compute instead of memory bandwidth."""
        return (self.bf16_flops or self.fp16_flops) / self.memory_bytes_per_second

    @property
    def capability(self) -> str:
        """The compute capability as text, as in `9.0`."""
        return f"{self.compute_capability[0]}.{self.compute_capability[1]}"
