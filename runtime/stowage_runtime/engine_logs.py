"""Reads vLLM's own figures out of its log, line by line.

vLLM says what it measured (weights, activations, CUDA graphs, KV cache) only in its log. Every rank prints
its own lines; what is kept is the figure of the rank where memory is tightest. A line that is not known is
ignored, never guessed at; the table of lines has the versions that print them and where that was read.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable

from stowage_runtime.tables import BYTES_PER_GIB, rows_for

_PROCESS = re.compile(r"\(([A-Za-z][\w ]*?)(?: (?:rank=\d+ )?pid=\d+)\)")
_RANK = re.compile(r"\((?:VllmWorker rank=(\d+)) pid=\d+\)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

_Fold = Callable[[Iterable[float]], float]

# Within one process a figure that is printed again replaces the old one, but KV figures before 0.11 are
# printed once for every rank by the same process: there the smallest is what the scheduler uses.
_WITHIN_PROCESS: dict[str, _Fold] = {
    "kv_cache_tokens": min,
    "max_concurrency": min,
    "num_gpu_blocks": min,
    "kv_cache_bytes": min,
}
# Across processes: KV tokens belong to data-parallel engines and add up; memory is that of the tightest rank.
_ACROSS_PROCESSES: dict[str, _Fold] = {
    "kv_cache_tokens": sum,
    "max_concurrency": sum,
    "num_gpu_blocks": sum,
    "kv_cache_bytes": min,
}


class EngineLog:
    """Collects figures from the lines it is fed; safe to read from another thread."""

    def __init__(self, engine_version: str) -> None:
        self._rows = [
            (row["name"], re.compile(row["pattern"])) for row in rows_for("log_lines", engine_version)
        ]
        self._figures: dict[str, dict[str, float]] = {}
        self._seen: dict[str, None] = {}
        self._lock = threading.Lock()

    def feed(self, line: str) -> None:
        """Take in one line of the engine's output."""
        plain = _COLOUR.sub("", line)
        for name, pattern in self._rows:
            found = pattern.search(plain)
            if found is not None:
                self._record(name, _process_of(plain), found.groupdict())

    def figures(self) -> dict[str, float]:
        """Return figure name to value, in bytes where the name says so, of the tightest rank."""
        with self._lock:
            ranks = {name: list(values.values()) for name, values in self._figures.items()}
            non_torch = self._non_torch_bytes()
        result = {name: _ACROSS_PROCESSES.get(name, max)(values) for name, values in ranks.items()}
        if non_torch is not None:
            result.setdefault("non_torch_bytes", non_torch)
        return result

    def lines_seen(self) -> tuple[str, ...]:
        """Return the names of the recognised lines, in the order in which they first came."""
        with self._lock:
            return tuple(self._seen)

    def _record(self, line_name: str, process: str, groups: dict[str, str]) -> None:
        with self._lock:
            self._seen[line_name] = None
            for group, text in groups.items():
                name, value = _figure(group, text)
                ranks = self._figures.setdefault(name, {})
                fold = _WITHIN_PROCESS.get(name)
                ranks[process] = fold((value, ranks[process])) if fold and process in ranks else value

    def _non_torch_bytes(self) -> float | None:
        """Take the weights from what 0.27 and later print as one sum, rank by rank."""
        consumed = self._figures.get("consumed_bytes", {})
        weights = self._figures.get("weights_bytes", {})
        both = [consumed[rank] - weights[rank] for rank in consumed.keys() & weights.keys()]
        return max(0.0, max(both)) if both else None


def _process_of(line: str) -> str:
    """Name the process that printed a line: the innermost prefix, without the process id."""
    rank = _RANK.search(line)
    if rank is not None:
        return f"VllmWorker {rank.group(1)}"
    names = _PROCESS.findall(line)
    return names[-1] if names else ""


def _figure(group: str, text: str) -> tuple[str, float]:
    value = float(text.replace(",", ""))
    if group.endswith("_gib"):
        return group[: -len("gib")] + "bytes", value * BYTES_PER_GIB
    return group, value
