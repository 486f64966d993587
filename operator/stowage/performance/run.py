"""What happened in a stepped run, before anybody averages it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Run:
    """Latencies of each request in seconds, and where the time went.

    `busy` seconds were steps, `prompt_seconds` of them what prompts added to decoding. `decoded` and `context` are
    sums over the `decode_steps` of requests and of cached tokens, `in_flight_seconds` one of requests over time.
    `waiting_for_room`: seconds in which a request could not start for want of KV cache; over those seconds,
    `queued_for_room` and `running_beside` are the sums of requests that waited and that ran.
    """

    ttft: list[float] = field(default_factory=list)
    tpot: list[float] = field(default_factory=list)
    seconds: float = 0.0
    busy: float = 0.0
    prompt_seconds: float = 0.0
    decode_steps: float = 0.0
    decoded: float = 0.0
    context: float = 0.0
    prompt_steps: float = 0.0
    prompt_tokens: float = 0.0
    prompt_pairs: float = 0.0
    output_tokens: float = 0.0
    waiting_for_room: float = 0.0
    queued_for_room: float = 0.0
    running_beside: float = 0.0
    in_flight_seconds: float = 0.0
