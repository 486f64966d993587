"""Which attention backend an engine picks, as far as memory goes: its block size and the cache formats it takes.

Each release tries backends in an order that depends on the device; the first that takes the head size, the
dtype, the cache format and the block size serves the layer (vllm/platforms/cuda.py). What each can do is data:
kv/attention_backends.toml. Where none fits, the engine ends at start, and so there is a refusal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from stowage.api.reasons import Reason
from stowage.api.refusal import Refusal
from stowage.memory.kv.dtype import backend_table, known_kv_dtypes
from stowage.memory.release.engine_version import release_numbers

DEFAULT_BLOCK_SIZE: Final = 16
"""Tokens of a block where the backend takes it: CacheConfig.DEFAULT_BLOCK_SIZE."""

CPU_BLOCK_SIZE: Final = 128
"""Tokens of a block on CPUs with matrix units; without, latent attention takes 16 only (platforms/cpu.py)."""

_FEW_HEADS: Final = 16
_PLAIN: Final = frozenset({"auto", "bfloat16", "float16"})
_QUANTISED: Final = ("fp8", "nvfp4", "int8_per", "int4_per")


@dataclass(frozen=True, slots=True)
class AttentionNeeds:
    """What a layer asks of a backend.

    `attention` is "heads", "indexed" (heads with an indexer), "latent", "sparse" (latent with an indexer) or
    "compressed" (several tokens share a latent vector), `head_dim` what the cache keeps per head, `num_heads` the
    query heads of a rank. `sinks`: learned attention sinks; `cross`: over encoder states.
    """

    attention: str
    head_dim: int
    num_heads: int
    sinks: bool = False
    cross: bool = False
    nope_head_dim: int = 0


@dataclass(frozen=True, slots=True)
class Conditions:
    """Where the choice is made; `capability` None is the CPU backend, `block_size` None is not pinned."""

    release: str
    capability: tuple[int, int] | None
    device: str
    dtype: str
    kv_dtype: str
    block_size: int | None = None
    context_parallel: bool = False


@dataclass(frozen=True, slots=True)
class AttentionBackend:
    """The choice. `kv_dtype` is the format the cache is stored in.

    `kernel_blocks` are the block sizes that its kernels take, empty where any multiple of `block_multiple`
    does; larger blocks are cut into these.
    """

    name: str
    block_size: int
    kernel_blocks: tuple[int, ...]
    block_multiple: int
    kv_dtype: str

    @property
    def smallest_kernel_block(self) -> int:
        """Fewest tokens of a block that the kernels take."""
        return min(self.kernel_blocks, default=self.block_multiple)

    def takes_block(self, tokens: int) -> bool:
        """Whether a block of that many tokens is whole kernel blocks."""
        return any(tokens % size == 0 for size in self.kernel_blocks or (self.block_multiple,))

    def largest_kernel_block(self, tokens: int) -> int:
        """Give the largest kernel block of at most that many tokens, else the smallest there is."""
        if not self.kernel_blocks:
            return max(self.block_multiple, tokens // self.block_multiple * self.block_multiple)
        return max(
            (size for size in self.kernel_blocks if size <= tokens), default=self.smallest_kernel_block
        )


def choose_backend(needs: AttentionNeeds, where: Conditions) -> AttentionBackend | Refusal:
    """Give the backend that serves a layer, or the refusal where there is none."""
    if where.capability is None:
        return _cpu_backend(needs, where)
    return _first_fitting(needs, where) or _refusal(needs, where)


def auto_kv_dtype(architecture: str, release: str, capability: tuple[int, int] | None) -> str:
    """Give what `--kv-cache-dtype auto` becomes for an architecture that has a default of its own."""
    return _own_kv_dtype("auto_dtype", architecture, release, capability)


def stated_kv_dtype(architecture: str, release: str, capability: tuple[int, int] | None) -> str:
    """Give the `--kv-cache-dtype` to start with where nobody asks for one: "auto", unless that would end the start."""
    return _own_kv_dtype("stated_dtype", architecture, release, capability)


def _own_kv_dtype(table: str, architecture: str, release: str, capability: tuple[int, int] | None) -> str:
    now = release_numbers(release) or ()
    for row in backend_table()[table]:
        applies = row["architecture"] == architecture and _within(capability, row["capabilities"])
        if applies and _since(row) <= now < (release_numbers(row["until"]) or ()):
            return str(row["kv_dtype"])
    return "auto"


def _cpu_backend(needs: AttentionNeeds, where: Conditions) -> AttentionBackend | Refusal:
    heads = needs.attention == "heads"
    if where.kv_dtype not in _PLAIN and not (
        (heads and where.kv_dtype.startswith("fp8_e")) or where.kv_dtype == "fp8"
    ):
        return _refusal(needs, where)
    name = "CPU_ATTN" if heads else "AMX_MLA"
    return AttentionBackend(name, where.block_size or CPU_BLOCK_SIZE, (), 32, where.kv_dtype)


@lru_cache(maxsize=4096)
def _first_fitting(needs: AttentionNeeds, where: Conditions) -> AttentionBackend | None:
    order = _latest((row for row in backend_table()["order"] if row["attention"] == needs.attention), where)
    if order is None:
        return None
    for name in _names(order, needs, where):
        row = _latest((row for row in backend_table()["backend"] if row["name"] == name), where, exact=True)
        if row is not None and _serves(row, needs, where):
            return _backend(row, order, where)
    return None


def _names(order: dict[str, Any], needs: AttentionNeeds, where: Conditions) -> list[str]:
    names: list[str] = order["backends"]
    if where.kv_dtype.startswith(_QUANTISED):
        return list(order.get("quantized", names))
    return list(order.get("few_heads", names)) if needs.num_heads <= _FEW_HEADS else names


def _serves(row: dict[str, Any], needs: AttentionNeeds, where: Conditions) -> bool:
    return (
        _within(where.capability, row["capabilities"])
        and _takes_head(row, needs, where)
        and _takes_format(row, needs.head_dim, where)
        and where.dtype in row.get("dtypes", (where.dtype,))
        and (not needs.sinks or _within(where.capability, row.get("sinks", [])))
        and (not needs.cross or bool(row.get("cross", False)))
        and (not where.context_parallel or bool(row.get("context_parallel", True)))
        and (where.block_size is None or _shell(row).takes_block(where.block_size))
    )


def _takes_head(row: dict[str, Any], needs: AttentionNeeds, where: Conditions) -> bool:
    if "nope_head_dims" in row and needs.nope_head_dim not in row["nope_head_dims"]:
        return False
    sizes = row.get("head_sizes", [])
    if sizes and needs.head_dim not in sizes:
        return False
    larger = row.get("larger_heads")
    limits = larger if larger and _within(where.capability, larger["capabilities"]) else row
    smallest, largest = row.get("smallest_head", 1), limits.get("largest_head", needs.head_dim)
    return bool(smallest <= needs.head_dim <= largest and needs.head_dim % row.get("head_multiple", 1) == 0)


def _takes_format(row: dict[str, Any], head_dim: int, where: Conditions) -> bool:
    if where.kv_dtype in row.get("refuses", []):
        return False
    if where.kv_dtype in _PLAIN or where.kv_dtype in row["kv_dtypes"]:
        return True
    return any(
        where.kv_dtype in special["kv_dtypes"]
        and _within(where.capability, special["capabilities"])
        and special.get("smallest_head", 1) <= head_dim <= special["largest_head"]
        for special in row.get("quantized", [])
    )


def _backend(row: dict[str, Any], order: dict[str, Any], where: Conditions) -> AttentionBackend:
    shell, kv_dtype = _shell(row), where.kv_dtype
    if "stored_as" in row and (kv_dtype.startswith("fp8") or row.get("always_stored_as", False)):
        kv_dtype = row["stored_as"]
    preferred = DEFAULT_BLOCK_SIZE if shell.takes_block(DEFAULT_BLOCK_SIZE) else shell.smallest_kernel_block
    size = where.block_size or order.get("forced_block") or preferred
    return replace(shell, block_size=size, kv_dtype=kv_dtype)


def _shell(row: dict[str, Any]) -> AttentionBackend:
    return AttentionBackend(
        row["name"], 0, tuple(row.get("block_sizes", [])), row.get("block_multiple", DEFAULT_BLOCK_SIZE), ""
    )


def _latest(
    rows: Iterable[dict[str, Any]], where: Conditions, *, exact: bool = False
) -> dict[str, Any] | None:
    """Give the row that holds in the release; with `exact`, whatever the device."""
    release = release_numbers(where.release) or ()
    found = [
        row
        for row in rows
        if _since(row) <= release and (exact or _within(where.capability, row["capabilities"]))
    ]
    return max(found, key=lambda row: (_since(row), -_width(row)), default=None)


def _since(row: dict[str, Any]) -> tuple[int, ...]:
    return release_numbers(row["since"]) or ()


def _width(row: dict[str, Any]) -> int:
    """Give how many devices a row is for: the more special of two rows of one release wins."""
    return sum(last - first for first, last in row["capabilities"])


def _within(capability: tuple[int, int] | None, ranges: list[list[int]]) -> bool:
    if capability is None:
        return False
    number = 10 * capability[0] + capability[1]
    return any(first <= number <= last for first, last in ranges)


def _refusal(needs: AttentionNeeds, where: Conditions) -> Refusal:
    words = {
        "heads": "attention",
        "indexed": "sparse attention",
        "latent": "latent attention",
        "sparse": "sparse latent attention",
        "compressed": "compressed latent attention",
    }
    message = (
        f"No {words[needs.attention]} backend of vLLM {where.release} on {where.device} takes heads of "
        f"{needs.head_dim} with kv_cache_dtype {where.kv_dtype} and dtype {where.dtype}"
        f"{'' if where.block_size is None else f' in blocks of {where.block_size} tokens'}."
    )
    others = [
        name
        for name in known_kv_dtypes(where.release)
        if where.capability is not None and _first_fitting(needs, replace(where, kv_dtype=name))
    ]
    hint = f"Use kv_cache_dtype {', '.join(others)}." if others else "Use another GPU or another release."
    return Refusal(Reason.UNSUPPORTED_DTYPE, message, hint)
