"""The options of `vllm serve` that a plan sets.

Every limit that the plan was computed with is passed explicitly, so that an engine default that changes between
releases or with the size of the card can never differ from what was planned. The agent adds the model's path, the
served name and the address to bind; nobody else may set those.
"""

from __future__ import annotations

from collections.abc import Sequence

from stowage.planning.plan import EngineSettings


def vllm_args(settings: EngineSettings, extra: Sequence[str]) -> list[str]:
    """Options for the engine, the user's own ones (`spec.runtime.args`) last."""
    args = [
        "--dtype", settings.dtype,
        "--max-model-len", str(settings.max_model_len),
        "--max-num-seqs", str(settings.max_num_seqs),
        "--max-num-batched-tokens", str(settings.max_num_batched_tokens),
        "--kv-cache-dtype", settings.kv_cache_dtype,
    ]  # fmt: skip
    if settings.gpu_memory_utilization is not None:
        args += ["--gpu-memory-utilization", f"{settings.gpu_memory_utilization:g}"]
    if settings.kv_cache_memory_bytes is not None:
        args += ["--kv-cache-memory-bytes", str(settings.kv_cache_memory_bytes)]
    args += _parallelism(settings)
    if settings.quantization is not None:
        args += ["--quantization", settings.quantization]
    if settings.enforce_eager:
        args.append("--enforce-eager")
    return [*args, *extra]


def _parallelism(settings: EngineSettings) -> list[str]:
    sizes = {
        "--tensor-parallel-size": settings.tensor_parallel_size,
        "--pipeline-parallel-size": settings.pipeline_parallel_size,
        "--data-parallel-size": settings.data_parallel_size,
    }
    args = [word for option, size in sizes.items() if size > 1 for word in (option, str(size))]
    return [*args, "--enable-expert-parallel"] if settings.enable_expert_parallel else args
