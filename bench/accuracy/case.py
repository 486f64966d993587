"""One measured start-up, as a line of a cases file states it; None is what the log does not say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.case_file import Row, read_rows
from stowage.memory.release.engine_version import EngineVersion, engine_version, release_numbers

_DEFAULT_BLOCK_SIZE = 16
_DEV_OF_NOTHING = "0.1.dev"
"""Builds outside of a tagged tree call themselves that; they say nothing about the release."""


@dataclass(frozen=True)
class Case(Row):
    """A row; fields are read by their names in the file."""

    @property
    def started(self) -> bool:
        """Whether the server came up."""
        return self.row.get("outcome") == "started"

    @property
    def release(self) -> str | None:
        """The release that ran, None where the row does not say or names a build without one ("nightly")."""
        version = self.row.get("vllm_version")
        if not version or str(version).startswith(_DEV_OF_NOTHING) or release_numbers(str(version)) is None:
            return None
        return str(version)

    @property
    def is_dev_build(self) -> bool:
        """Whether the version is a development build rather than a release."""
        version = str(self.row.get("vllm_version") or "")
        return "dev" in version or "+" in version

    @property
    def measured_kv_tokens(self) -> int | None:
        """Tokens of the KV cache: concurrency × length, else the printed number, else blocks."""
        concurrency, length = self.row.get("max_concurrency"), self.row.get("max_concurrency_len")
        if concurrency is not None and length is not None:
            return int(concurrency * length)
        if self.row.get("kv_tokens") is not None:
            return int(self.row["kv_tokens"])
        blocks = self.row.get("num_gpu_blocks")
        return None if blocks is None else int(blocks * (self.row.get("block_size") or _DEFAULT_BLOCK_SIZE))

    def is_core(self, memory_is_known: bool) -> bool:
        """Tell whether the row states enough to judge a prediction by; from its fields alone."""
        row = self.row
        stated = all(
            row.get(name) is not None
            for name in ("gpu_memory_utilization", "max_num_seqs", "max_num_batched_tokens")
        )
        return (
            self.started
            and row.get("engine") == "V1"
            and self.release is not None
            and not self.is_dev_build
            and isinstance(engine_version(self.release), EngineVersion)
            and memory_is_known
            and (stated or bool(row.get("cmd_complete")))
        )


def read_cases(path: Path) -> tuple[Case, ...]:
    """Read a cases file; raises ValueError naming the line that cannot be read."""
    return read_rows(path, Case)
