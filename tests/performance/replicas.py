"""Replicas for tests of the performance model: a published model in a shape on a GPU, with room for the cache."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

from stowage.hardware.catalog import find_gpu
from stowage.hardware.gpu import Gpu
from stowage.memory.shape import EngineShape
from stowage.performance.forecast import Forecast
from stowage.performance.roofline import Roofline
from stowage.performance.serving import Serving
from stowage.performance.traffic import Traffic
from tests.memory.support import version
from tests.model.support import published

EIGHT = "meta-llama--Llama-3.1-8B-Instruct"
SEVENTY = "meta-llama--Meta-Llama-3.1-70B"
MIXTURE = "Qwen--Qwen3-30B-A3B"


def gpu_named(name: str) -> Gpu:
    found = find_gpu(name)
    assert found is not None, name
    return found


@cache
def replica(folder: str = EIGHT, gpu: str = "H100", kv_tokens: int = 2_000_000, **shape: Any) -> Serving:
    plain = EngineShape(1, 1, "auto", "auto", 0.92, 16384, 256, 8192, False, None)
    return Serving(published(folder), replace(plain, **shape), gpu_named(gpu), version(), kv_tokens)


def forecast_of(serving: Serving, traffic: Traffic, fast: bool = False) -> Forecast:
    found = Roofline(fast=fast).forecast(serving, traffic)
    assert isinstance(found, Forecast), found
    return found
