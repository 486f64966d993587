"""Whether the user pinned anything that decides speed: then the plan obeys and states the shortfall."""

from __future__ import annotations

from stowage.api.v1alpha1 import LLMDeploymentSpec, Toggle


def pinned_fields(spec: LLMDeploymentSpec) -> tuple[str, ...]:
    """Name the fields that leave the search less than everything: a plan that obeys them may miss objectives."""
    parallel, engine, hardware = spec.parallelism, spec.engine, spec.hardware
    pairs = (
        ("spec.parallelism.tensor", parallel.tensor is not None),
        ("spec.parallelism.pipeline", parallel.pipeline is not None),
        ("spec.parallelism.data", parallel.data is not None),
        ("spec.parallelism.expertParallel", parallel.expert_parallel is not Toggle.AUTO),
        ("spec.engine.gpuMemoryUtilization", engine.gpu_memory_utilization is not None),
        ("spec.engine.maxNumSeqs", engine.max_num_seqs is not None),
        ("spec.engine.maxNumBatchedTokens", engine.max_num_batched_tokens is not None),
        ("spec.engine.kvCacheMemory", engine.kv_cache_memory is not None),
        ("spec.engine.enforceEager", engine.enforce_eager is not None),
        ("spec.hardware.gpus", bool(hardware.gpus)),
    )
    return tuple(name for name, pinned in pairs if pinned)
