"""What the agent tells the operator about one running engine, as served at ``GET /report``.

Every figure here was measured or read from the engine itself; None means not known (yet), never zero. Readers
ignore keys that they do not know, since an operator may be older than an agent and the other way round.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from stowage_runtime.contract.fields import (
    Record,
    choice,
    constant,
    defaulted,
    free_text,
    integer,
    nested,
    number,
    optional,
    sequence,
    text,
    wire,
)
from stowage_runtime.contract.reasons import TERMINATION_REASONS

PHASES = ("Preflight", "Fetching", "Loading", "Warming", "Serving", "Draining", "Failed")
"""In the order in which a healthy agent goes through them; Failed may follow any."""

_RFC3339 = text(
    "an RFC 3339 time in UTC like 2026-01-31T12:00:00Z", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", 40
)
_COUNT = integer(0)
_BYTES = optional(integer(0))
_RATE = optional(number(0))


@dataclass(frozen=True)
class Progress(Record):
    """How far the download is; ``note`` says in words what the agent waits for."""

    ignore_unknown_keys: ClassVar[bool] = True

    fetched_bytes: int = field(default=0, metadata=wire(defaulted(_COUNT)))
    total_bytes: int | None = field(default=None, metadata=wire(_BYTES))
    note: str | None = field(default=None, metadata=wire(optional(free_text(1024))))


@dataclass(frozen=True)
class EngineFacts(Record):
    """The engine's own figures.

    Memory is per GPU, of the rank where it is tightest; KV cache tokens and blocks are summed over
    data-parallel engines. ``kind`` is ``simulated`` for a stand-in engine. ``kv_cache_bytes`` may be
    negative: vLLM then refuses to start. ``max_concurrency`` is in requests of the maximum length.
    ``log_lines_seen`` names the log lines that were recognised.
    """

    ignore_unknown_keys: ClassVar[bool] = True

    kind: str | None = field(default=None, metadata=wire(optional(choice("vllm", "simulated"))))
    version: str | None = field(default=None, metadata=wire(optional(free_text(64))))
    block_size: int | None = field(default=None, metadata=wire(optional(integer(1))))
    num_gpu_blocks: int | None = field(default=None, metadata=wire(optional(_COUNT)))
    kv_cache_tokens: int | None = field(default=None, metadata=wire(optional(_COUNT)))
    max_concurrency: float | None = field(default=None, metadata=wire(_RATE))
    weights_bytes: int | None = field(default=None, metadata=wire(_BYTES))
    kv_cache_bytes: int | None = field(default=None, metadata=wire(optional(integer(-(2**60)))))
    activation_bytes: int | None = field(default=None, metadata=wire(_BYTES))
    cuda_graph_bytes: int | None = field(default=None, metadata=wire(_BYTES))
    cuda_graph_estimate_bytes: int | None = field(default=None, metadata=wire(_BYTES))
    non_torch_bytes: int | None = field(default=None, metadata=wire(_BYTES))
    log_lines_seen: tuple[str, ...] = field(
        default=(), metadata=wire(defaulted(sequence(free_text(64), "a list of names")))
    )


@dataclass(frozen=True)
class Utilization(Record):
    """What the engine does: counters since its start, gauges now, rates over ``window_seconds``.

    Counts are summed over data-parallel engines, ``kv_usage`` is their mean. A mean is None when nothing
    finished.
    """

    ignore_unknown_keys: ClassVar[bool] = True

    kv_usage: float = field(metadata=wire(number(0, 1)))
    running: int = field(metadata=wire(_COUNT))
    waiting: int = field(metadata=wire(_COUNT))
    preemptions_total: int = field(metadata=wire(_COUNT))
    prompt_tokens_total: int = field(metadata=wire(_COUNT))
    generation_tokens_total: int = field(metadata=wire(_COUNT))
    request_success_total: int = field(metadata=wire(_COUNT))
    prompt_tokens_per_second: float | None = field(default=None, metadata=wire(_RATE))
    generation_tokens_per_second: float | None = field(default=None, metadata=wire(_RATE))
    ttft_seconds_mean: float | None = field(default=None, metadata=wire(_RATE))
    tpot_seconds_mean: float | None = field(default=None, metadata=wire(_RATE))
    window_seconds: float | None = field(default=None, metadata=wire(_RATE))


@dataclass(frozen=True)
class Failure(Record):
    """Why the agent gave up; the same reason and sentence as in the termination message."""

    ignore_unknown_keys: ClassVar[bool] = True

    reason: str = field(metadata=wire(choice(*TERMINATION_REASONS)))
    message: str = field(metadata=wire(free_text()))


@dataclass(frozen=True)
class RuntimeReport(Record):
    """One agent's whole report; ``launch_hash`` is the SHA-256 of the launch.json it was given."""

    ignore_unknown_keys: ClassVar[bool] = True

    phase: str = field(metadata=wire(choice(*PHASES)))
    phase_since: str = field(metadata=wire(_RFC3339))
    started_at: str = field(metadata=wire(_RFC3339))
    launch_hash: str = field(metadata=wire(text("64 hexadecimal digits", r"[0-9a-f]{64}", 64)))
    progress: Progress = field(default_factory=Progress, metadata=wire(defaulted(nested(Progress))))
    engine: EngineFacts = field(default_factory=EngineFacts, metadata=wire(defaulted(nested(EngineFacts))))
    utilization: Utilization | None = field(default=None, metadata=wire(optional(nested(Utilization))))
    failure: Failure | None = field(default=None, metadata=wire(optional(nested(Failure))))
    schema: int = field(default=1, metadata=wire(constant(1, "update the operator to read newer agents")))
