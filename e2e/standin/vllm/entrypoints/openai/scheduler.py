"""Runs requests as vLLM's scheduler would count them: a bounded batch, a queue, KV blocks held while running.

Why: queue length, KV use and latencies are what is scaled on; the stand-in must move them as load does.
A request takes `ttft + (tokens - 1) × tpot`, both set by the steering. The text it "generates" names the
stand-in.
It must never answer after it was told to abort.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from .capacity import Capacity
from .metrics import Metrics
from .steering import Steering

TEXT = "stand-in engine, not vLLM. "


class AbortedError(Exception):
    """The engine is going down and the request will not be finished."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request in tokens (a token is a byte of the prompt or a character of the answer)."""

    prompt_tokens: int
    max_tokens: int


class Scheduler:
    """The batch and the queue of one engine."""

    def __init__(self, capacity: Capacity, max_num_seqs: int, steering: Steering, metrics: Metrics) -> None:
        self._capacity = capacity
        self._max_num_seqs = max_num_seqs
        self._steering = steering
        self._metrics = metrics
        self._changed = threading.Condition()
        self._held_blocks = 0
        self._running = 0
        self._waiting = 0
        self._aborted = threading.Event()

    def gauges(self) -> dict[str, float]:
        """Return the gauges of this moment by metric name."""
        with self._changed:
            running, waiting, held = self._running, self._waiting, self._held_blocks
        return {
            "vllm:num_requests_running": float(running),
            "vllm:num_requests_waiting": float(waiting),
            'vllm:num_requests_waiting_by_reason{reason="capacity"}': float(waiting),
            'vllm:num_requests_waiting_by_reason{reason="deferred"}': 0.0,
            "vllm:kv_cache_usage_perc": held / max(1, self._capacity.blocks - 1),
        }

    def run(self, request: Request) -> Iterator[str]:
        """Yield the answer token by token; `AbortedError` when the engine goes down before it is complete."""
        arrived = time.monotonic()
        blocks = math.ceil((request.prompt_tokens + request.max_tokens) / self._capacity.block_size)
        self._admit(blocks)
        started = time.monotonic()
        produced, first = 0, started
        try:
            for token in itertools.islice(itertools.cycle(TEXT), request.max_tokens):
                self._pause(self._steering.ttft_seconds if produced == 0 else self._steering.tpot_seconds)
                if produced == 0:
                    first = time.monotonic()
                    self._metrics.add("vllm:prompt_tokens_total", request.prompt_tokens)
                    self._metrics.observe("vllm:time_to_first_token_seconds", first - arrived)
                produced += 1
                self._metrics.add("vllm:generation_tokens_total", 1)
                yield token
        finally:
            self._release(blocks)
            complete = produced == request.max_tokens
            reason = "length" if complete else "abort"
            self._metrics.add("vllm:request_success_total", 1, f'finished_reason="{reason}"')
        self._observe(request, arrived, started, first)

    def abort(self) -> None:
        """End all requests at once."""
        self._aborted.set()
        with self._changed:
            self._changed.notify_all()

    def _admit(self, blocks: int) -> None:
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: self._aborted.is_set() or self._has_room(blocks))
            finally:
                self._waiting -= 1
            if self._aborted.is_set():
                raise AbortedError
            self._running += 1
            self._held_blocks += blocks

    def _has_room(self, blocks: int) -> bool:
        if self._steering.fault == "stall":
            return False
        return self._running < self._max_num_seqs and self._held_blocks + blocks <= self._capacity.blocks - 1

    def _release(self, blocks: int) -> None:
        with self._changed:
            self._running -= 1
            self._held_blocks -= blocks
            self._changed.notify_all()

    def _pause(self, seconds: float) -> None:
        if self._aborted.wait(seconds) if seconds else self._aborted.is_set():
            raise AbortedError

    def _observe(self, request: Request, arrived: float, started: float, first: float) -> None:
        ended = time.monotonic()
        per_token = (ended - first) / max(1, request.max_tokens - 1)
        for name, value in {
            "request_time_per_output_token_seconds": per_token,
            "inter_token_latency_seconds": per_token,
            "e2e_request_latency_seconds": ended - arrived,
            "request_queue_time_seconds": started - arrived,
            "request_inference_time_seconds": ended - started,
            "request_prefill_time_seconds": first - started,
            "request_decode_time_seconds": ended - first,
            "request_prompt_tokens": request.prompt_tokens,
            "request_generation_tokens": request.max_tokens,
        }.items():
            self._metrics.observe(f"vllm:{name}", value)
