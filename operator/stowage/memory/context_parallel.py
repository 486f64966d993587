"""Which decode context parallel sizes the engine accepts: its ranks share the tokens of one request.

They are the tensor-parallel ranks, so they must hold the same keys and values: always so for latent vectors,
otherwise only for heads that are replicated. Rules of vLLM's config/parallel.py and
config/model.py::verify_with_parallel_config (0.32.0).
"""

from __future__ import annotations

from functools import lru_cache

from stowage.api.reasons import Reason
from stowage.api.refusal import Refusal
from stowage.model.profile import AttentionProfile, ModelProfile


@lru_cache(maxsize=1024)
def check_context_parallelism(
    profile: ModelProfile, tensor_parallel_size: int, decode_context_parallel_size: int
) -> Refusal | None:
    """Check the size against tensor parallelism and heads; None where the engine accepts it."""
    tp, dcp = tensor_parallel_size, decode_context_parallel_size
    if dcp < 1 or tp % dcp:
        message = f"Decode context parallel size {dcp} does not divide TP {tp}."
        return Refusal(Reason.INVALID_PARALLELISM, message, "Use a divisor of TP, or 1 for none.")
    if dcp == 1:
        return None
    problems = (_unshared(layer.attention, tp, dcp) for layer in dict.fromkeys(profile.layers))
    problem = next((problem for problem in problems if problem is not None), None)
    if problem is None:
        return None
    return Refusal(Reason.INVALID_PARALLELISM, problem, "Raise TP, or use decode_context_parallel_size 1.")


def _unshared(attention: AttentionProfile | None, tp: int, dcp: int) -> str | None:
    """Say why ranks would not hold the same heads; latent attention has none to divide."""
    if attention is None:
        return None
    heads = attention.num_kv_heads
    if tp <= heads:
        return f"Decode context parallelism needs more than TP {tp} for {heads} key/value heads."
    if dcp > tp // heads:
        return f"Decode context parallel size {dcp} is more than the {tp // heads} ranks that share a head."
    if attention.num_heads // heads % dcp:
        group = attention.num_heads // heads
        return (
            f"Decode context parallel size {dcp} does not divide the {group} query heads of a key/value head."
        )
    return None
