"""What runs: a model in a shape on a GPU, with the KV cache that the ledger found room for."""

from __future__ import annotations

from dataclasses import dataclass

from stowage.hardware.gpu import Gpu
from stowage.memory.release.engine_version import EngineVersion
from stowage.memory.shape import EngineShape
from stowage.model.profile import ModelProfile


@dataclass(frozen=True, slots=True)
class Serving:
    """One replica.

    `kv_tokens` are the tokens that the KV cache of one data-parallel rank holds, from the ledger. `same_node`:
    all tensor-parallel ranks reach each other over the GPU's own link; else over the network between nodes.
    `schedules_ahead`: the engine plans the next step while the GPU works; None: what the release does by default.
    """

    profile: ModelProfile
    shape: EngineShape
    gpu: Gpu
    version: EngineVersion
    kv_tokens: int
    same_node: bool = True
    schedules_ahead: bool | None = None
