"""Number formats of cached keys and values: how many bytes a vector takes.

A format is named as `--kv-cache-dtype` names it; which releases know it is data (kv/attention_backends.toml).
Scales of a whole tensor are weights and not counted here; scales of a token and head are.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

from stowage.memory.release.engine_version import release_numbers
from stowage.model.dtype import ELEMENT_BYTES


@dataclass(frozen=True, slots=True)
class KvFormat:
    """How a vector of keys, values or latents is stored.

    `element_bits` each, one scale byte for each `scale_group` elements (0: none) and `scale_bytes` for the
    vector. `token_bytes` is set where latent attention packs a token into an opaque record.
    """

    name: str
    element_bits: int
    scale_group: int = 0
    scale_bytes: int = 0
    token_bytes: int | None = None

    def vector_bytes(self, elements: int) -> int:
        """Give the bytes of one key or value of a head."""
        scales = elements // self.scale_group if self.scale_group else 0
        return elements * self.element_bits // 8 + scales + self.scale_bytes

    def latent_bytes(self, elements: int) -> int:
        """Give the bytes of one token's latent vector."""
        return self.vector_bytes(elements) if self.token_bytes is None else self.token_bytes


@lru_cache(maxsize=256)
def kv_format(kv_cache_dtype: str, model_dtype: str, release: str) -> KvFormat | None:
    """Look a format up; None where that release does not know it. "auto" is the dtype the model runs in."""
    if kv_cache_dtype == "auto":
        return KvFormat("auto", 8 * ELEMENT_BYTES[model_dtype])
    row = _rows().get(kv_cache_dtype)
    if row is None or not _knows(release, row["since"]):
        return None
    return KvFormat(
        kv_cache_dtype,
        row["bits"],
        row.get("scale_group", 0),
        row.get("scale_bytes", 0),
        row.get("token_bytes"),
    )


def known_kv_dtypes(release: str) -> tuple[str, ...]:
    """Give the formats that a release knows, "auto" first."""
    return ("auto", *(name for name, row in _rows().items() if _knows(release, row["since"])))


@cache
def backend_table() -> dict[str, Any]:
    """Give kv/attention_backends.toml, which holds formats beside backends."""
    text = files("stowage.memory.kv").joinpath("attention_backends.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


@cache
def _rows() -> dict[str, dict[str, Any]]:
    return {name: row for row in backend_table()["kv_dtype"] for name in row["names"]}


def _knows(release: str, since: str) -> bool:
    wanted, first = release_numbers(release), release_numbers(since)
    return wanted is not None and first is not None and first <= wanted
