"""Replicas for tests of levers: a published model in a shape on a GPU, with the KV cache that the ledger gives."""

from __future__ import annotations

from functools import cache

from stowage.hardware.catalog import find_gpu
from stowage.hardware.gpu import Gpu
from stowage.memory.budget import ledger
from stowage.memory.device import DeviceMemory
from stowage.memory.ledger import Ledger
from stowage.memory.shape import EngineShape
from stowage.performance.levers.question import LeverQuestion
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
def serving_of(folder: str, gpu: str = "H100", ranks: int = 1, seqs: int = 256) -> Serving:
    profile, card = published(folder), gpu_named(gpu)
    shape = EngineShape(ranks, 1, "auto", "auto", 0.92, 16384, seqs, 8192, False, None)
    device = DeviceMemory.of_gpu(card)
    found = ledger(profile, shape, device, version())
    assert isinstance(found, Ledger), found
    return Serving(profile, shape, card, version(), found.kv_tokens)


def question_of(serving: Serving, traffic: Traffic, **more: object) -> LeverQuestion:
    return LeverQuestion(serving, traffic, serving.gpu.cuda_total_bytes, **more)  # type: ignore[arg-type]
