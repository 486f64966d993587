"""A lever before it is judged: the replica and the traffic that it makes of the planned ones."""

from __future__ import annotations

from dataclasses import dataclass

from stowage.api.refusal import Refusal
from stowage.performance.serving import Serving
from stowage.performance.traffic import Traffic


@dataclass(frozen=True, slots=True)
class Attempt:
    """What to forecast for one lever.

    `serving` is the changed replica or why there is none. `replicas` share the requests in flight. `traffic` None:
    the same. `decode_factor` is what the time of decoding is multiplied by where a technique is not one of the
    engine's settings and the step model cannot express it. `why` is the sentence from the bottleneck. `frees_kv`: the
    lever is about room for KV, which longer batches could use.
    """

    name: str
    changes: str
    serving: Serving | Refusal
    why: str
    traffic: Traffic | None = None
    replicas: int = 1
    decode_factor: float = 1.0
    lossy: bool = False
    unmeasured: tuple[str, ...] = ()
    assumption: str = ""
    is_other_gpu: bool = False
    frees_kv: bool = False
