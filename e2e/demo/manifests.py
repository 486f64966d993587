"""The LLMDeployments that the demo applies."""

from __future__ import annotations

from typing import Any

GIB = 1 << 30
TINY_KV_CACHE = "256Mi"


def manifest(name: str, **spec: Any) -> dict[str, Any]:
    """An LLMDeployment with that spec."""
    return {
        "apiVersion": "stowage.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": name},
        "spec": spec,
    }


LLAMA_8B = manifest("llama-8b", mode="Plan", model={"source": "hf://meta-llama/Llama-3.1-8B-Instruct"})

LLAMA_70B = manifest(
    "llama-70b",
    mode="Plan",
    model={"source": "hf://meta-llama/Llama-3.1-70B-Instruct"},
    workload={"maxModelLen": 32768, "concurrencyPerReplica": 8, "promptTokens": {"mean": 4000}},
)

REFUSED_70B = manifest(
    "llama-70b-on-l4",
    mode="Plan",
    model={"source": "hf://meta-llama/Llama-3.1-70B-Instruct"},
    hardware={"gpus": ["NVIDIA-L4"]},
)

TINY = manifest(
    "tiny",
    model={"source": "hf://stowage/tiny-llama"},
    hardware={"class": "CPU"},
    workload={"maxModelLen": 1024},
    engine={"kvCacheMemory": TINY_KV_CACHE, "maxNumSeqs": 4},
)

TINY_ON_L4 = manifest(
    "tiny-on-l4",
    model={"source": "hf://stowage/tiny-llama"},
    hardware={"gpus": ["NVIDIA-L4"]},
)
