"""The scheduler, stepped: what each request of a run waits for, by the engine's own rules.

vLLM V1: every running request gets one token in a step, prompts fill what the token budget leaves, first come
first served and in chunks; a request starts when there is a place and room in the KV cache, and the youngest is put
back when that runs out. Runs of equal decode steps are taken at once, and in large loads requests go in groups.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from math import ceil
from typing import Final

from stowage.performance.pace import Pace, pace_of
from stowage.performance.requests import Request, requests_of
from stowage.performance.run import Run
from stowage.performance.serving import Serving
from stowage.performance.traffic import Traffic

_GROUPS: Final = 48
"""Requests, or groups of them, in flight at most in a simulated run."""

_FEWEST_GROUPS: Final = 8
"""Groups that run at once at least, where room or places are short: fewer would start and stop together."""

_TOKENS_PER_SECOND: Final = 1e6
"""Prompt tokens that the server turns text into, one prompt after another: what fast tokenizers do on one core."""


def simulate(serving: Serving, traffic: Traffic) -> Run:
    """Run this traffic on one data-parallel rank, until all requests of it have ended."""
    return _Scheduler(serving, traffic).run()


class _Scheduler:
    """The state of one rank."""

    def __init__(self, serving: Serving, traffic: Traffic) -> None:
        ranks, shape = serving.shape.data_parallel_size, serving.shape
        self.pace: Pace = pace_of(serving)
        self.traffic = traffic
        clients = (traffic.concurrency or 0) / ranks
        self.request_seconds = self.pace.table.request_seconds
        self.weight = _weight(serving, traffic, clients)
        self.clients = max(1, round(clients / self.weight)) if clients else 0
        self.budget = float(shape.max_num_batched_tokens)
        self.places = max(1, int(shape.max_num_seqs / self.weight))
        self.now, self.counter, self.orders = 0.0, 0, 0
        self.future: deque[Request] = deque(requests_of(traffic, ranks, self.weight, self.clients))
        # Whatever the engine lets in fits when it is alone, and so must the longest of a spread.
        longest = max(request.prompt + request.output for request in self.future)
        least = max(traffic.peak_context_tokens * 1.5, longest + 1.0) * self.weight
        self.room = max(float(serving.kv_tokens), least)
        self.coming: list[tuple[float, int, Request]] = []
        self.waiting: deque[Request] = deque()
        self.decided_at = -1.0
        self.blocked = False
        self.server_free_at = 0.0
        self.partial: list[Request] = []
        self.decoding: list[tuple[int, int, Request]] = []
        self.gone: set[int] = set()
        self.alive = 0
        self.held = 0.0
        self.result = Run()

    def run(self) -> Run:
        """Step until nothing is left."""
        for _ in range(self.clients or len(self.future)):
            self._send()
        while self.coming or self.waiting or self.partial or self.alive:
            self._take_arrivals()
            chosen = self._choose()
            if chosen:
                self._mixed_step(chosen)
            elif self.alive:
                self._decode_steps()
            else:
                self.now = self.decided_at = max(self.now, self.coming[0][0])
        self.result.seconds = self.now
        return self.result

    def _send(self) -> None:
        """Let a client send its next request; the server reads prompts one after another."""
        if not self.future:
            return
        request = self.future.popleft()
        if self.clients:
            request.arrival = self.now
        self.server_free_at = max(self.server_free_at, request.arrival) + (
            request.prompt * self.weight / _TOKENS_PER_SECOND
        )
        ready = self.server_free_at + self.request_seconds / 2
        self.orders += 1
        heappush(self.coming, (ready, self.orders, request))

    def _take_arrivals(self) -> None:
        """Take what had come when this step was planned: a step earlier where the engine schedules ahead."""
        idle = not (self.alive or self.partial)
        until = self.decided_at if self.pace.schedules_ahead and not idle else self.now
        self.decided_at = self.now
        while self.coming and self.coming[0][0] <= until:
            self.waiting.append(heappop(self.coming)[2])

    def _choose(self) -> list[tuple[Request, int]]:
        """Fill what decoding leaves of the token budget with prompts."""
        left = (self.budget - self.alive * self.weight) / self.weight
        chosen: list[tuple[Request, int]] = []
        for request in self.partial:
            take = min(request.computed, int(left))
            if take > 0:
                chosen.append((request, take))
                left -= take
        while self.waiting and left >= 1 and self.alive + len(self.partial) < self.places:
            request = self.waiting[0]
            size = (request.prompt + request.generated) * self.weight
            self.blocked = self.held + size + self.alive * self.weight > self.room
            if self.blocked:
                break
            self.waiting.popleft()
            self.held += size
            self.partial.append(request)
            take = min(request.computed, int(left))
            chosen.append((request, take))
            left -= take
        return chosen

    def _mixed_step(self, chosen: list[tuple[Request, int]]) -> None:
        weight, result = self.weight, self.result
        tokens = pairs = done = 0.0
        for request, take in chosen:
            whole = request.prompt + request.generated
            before = whole - request.computed
            tokens += take
            pairs += take * (before + take / 2)
            request.computed -= take
            done += request.computed == 0
        decoding = self.alive * weight
        context = self._context()
        plain = self.pace.quick(0.0, 0.0, 0.0, decoding, context) if decoding else 0.0
        took = self.pace.quick(tokens * weight, pairs * weight, done * weight, decoding, context)
        self._advance(took, 1)
        result.prompt_seconds += took - plain
        result.prompt_steps += 1
        result.prompt_tokens += tokens * weight
        result.prompt_pairs += pairs * weight
        self._end_finished()
        for request, _ in chosen:
            if request.computed == 0:
                self.partial.remove(request)
                self._start_decoding(request)

    def _context(self) -> float:
        waiting = sum((r.prompt + r.generated) for r in self.partial) * self.weight
        return max(0.0, self.held - waiting)

    def _start_decoding(self, request: Request) -> None:
        if request.first < 0:
            request.first = self.now
            self.result.ttft.append(self.now - request.arrival + self.request_seconds / 2)
            request.generated = 1
            self.held += self.weight
            self.result.output_tokens += self.weight
        request.started_at = self.counter - request.generated
        request.ends_at = self.counter + request.output - request.generated
        self.orders += 1
        request.order = self.orders
        if request.ends_at <= self.counter:
            self._end(request)
            return
        self.alive += 1
        heappush(self.decoding, (request.ends_at, request.order, request))

    def _decode_steps(self) -> None:
        """Take decode steps until the next event."""
        weight = self.weight
        decoding = self.alive * weight
        free = (self.room - self.held) / decoding
        steps = min(self.decoding[0][0] - self.counter, max(1, int(free)))
        if free < 1:
            self._put_back()
            return
        one = self.pace.quick(0.0, 0.0, 0.0, decoding, self._context() + decoding * steps / 2)
        if self.coming:
            steps = max(1, min(steps, ceil((self.coming[0][0] - self.now) / one)))
        start = self.now
        self._advance(one * steps, steps)
        self.decided_at = max(start, self.now - one)
        self._end_finished()

    def _advance(self, seconds: float, steps: int) -> None:
        result, decoding = self.result, self.alive * self.weight
        flying = decoding + len(self.partial) * self.weight
        self.now += seconds
        self.counter += steps
        self.held += decoding * steps
        result.busy += seconds
        result.in_flight_seconds += seconds * (flying + len(self.waiting) * self.weight)
        if decoding:
            result.decode_steps += steps
            result.decoded += decoding * steps
            result.context += self._context() * steps
        result.output_tokens += decoding * steps
        if self.blocked and self.waiting:
            result.waiting_for_room += seconds
            result.queued_for_room += seconds * len(self.waiting) * self.weight
            result.running_beside += seconds * flying

    def _end_finished(self) -> None:
        while self.decoding and self.decoding[0][0] <= self.counter:
            _, order, request = heappop(self.decoding)
            if order in self.gone:
                self.gone.discard(order)
                continue
            self.alive -= 1
            self._end(request)

    def _end(self, request: Request) -> None:
        self.held -= (request.prompt + request.output) * self.weight
        if request.output > 1:
            self.result.tpot.append((self.now - request.first) / (request.output - 1))
        if self.clients:
            self._send()

    def _put_back(self) -> None:
        """Put the youngest request back to wait; what it had is computed again."""
        _, order, request = max(
            (entry for entry in self.decoding if entry[1] not in self.gone), key=lambda entry: entry[1]
        )
        self.gone.add(order)
        self.alive -= 1
        request.generated = self.counter - request.started_at
        self.held -= (request.prompt + request.generated) * self.weight
        request.computed = request.prompt + request.generated
        self.waiting.appendleft(request)


def _weight(serving: Serving, traffic: Traffic, clients: float) -> float:
    """Give how many requests go together, so that a large load takes no more steps than a small one."""
    running = min(serving.shape.max_num_seqs, serving.kv_tokens / traffic.mean_context_tokens)
    return max(1.0, min(clients / _GROUPS, running / _FEWEST_GROUPS))
