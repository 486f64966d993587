"""How the stand-in is told to behave: `standin` in config.json, overruled by the variable `STANDIN`.

Why: a test steers one model through its repository, or one pod through its environment; both are JSON objects
with the fields of `Steering`.
It must never be read by anything but the stand-in.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

FAULTS = {
    "cuda_oom_load": "out of GPU memory while weights are loaded; exit 1",
    "cuda_oom_profile": "out of GPU memory in the profiling run; exit 1",
    "kv_too_small": "the KV cache does not hold one request of the maximum length; exit 1",
    "no_kv": "nothing is left for the KV cache; exit 1",
    "free_memory": "less memory is free than the utilisation asks for; exit 1",
    "exit": "ends with `exit_code` after `after_seconds`, before it serves",
    "exit_serving": "ends with `exit_code` after it has served for `after_seconds`",
    "hang": "starts to load and never ends",
    "slow_start": "serves only after `after_seconds`",
    "unhealthy": "/health answers 503 after it has served for `after_seconds`",
    "stall": "completions are accepted and never answered",
    "refuse": "completions are answered 500",
}
"""Fault → what happens."""


@dataclass(frozen=True, slots=True)
class Steering:
    """What one stand-in shall do; empty fault: everything works. Sizes in bytes, times in seconds.

    `loss_nats` is by how much the checkpoint's tokens are less likely than an exact one's, `lossy_nats` how much less
    likely they are still where weights are quantised on load or the KV cache has eight bits.
    """

    fault: str = ""
    after_seconds: float = 0.0
    exit_code: int = 1
    kv_tokens: int = 0
    kv_bytes: int = 0
    weight_bytes: int = 0
    activation_bytes: int = 1 << 30
    cuda_graph_bytes: int = 1 << 29
    non_torch_bytes: int = 1 << 28
    ttft_seconds: float = 0.0
    tpot_seconds: float = 0.0
    loss_nats: float = 0.0
    lossy_nats: float = 0.0


def steering_of(config: Mapping[str, Any]) -> Steering:
    """Return the steering for a model's config.json.

    `SystemExit` names a field or fault that does not exist.
    """
    settings = {**config.get("standin", {}), **json.loads(os.environ.get("STANDIN", "{}"))}
    known = {field.name for field in fields(Steering)}
    if unknown := set(settings) - known:
        raise SystemExit(f"stand-in: unknown setting {sorted(unknown)}, use {sorted(known)}")
    steering = Steering(**settings)
    if steering.fault and steering.fault not in FAULTS:
        raise SystemExit(f"stand-in: unknown fault {steering.fault!r}, use one of {sorted(FAULTS)}")
    return steering
