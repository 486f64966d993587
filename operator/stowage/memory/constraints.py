"""Which shapes the engine accepts at all, each rule as a refusal that says what would work.

Rules of vLLM: `verify_with_parallel_config`, `divide()` in the parallel layers, scheduler checks. A shape
that breaks one ends the server at start whatever memory there is, so no ledger is made for it.
"""

from __future__ import annotations

from functools import lru_cache

from stowage.api.reasons import Reason
from stowage.api.refusal import Refusal
from stowage.memory.context_parallel import check_context_parallelism
from stowage.memory.device import DeviceMemory
from stowage.memory.encoder_limits import check_encoders
from stowage.memory.layout import RankLayout
from stowage.memory.release.engine_version import EngineVersion, release_numbers
from stowage.memory.shape import EngineShape
from stowage.model.dtype import element_type
from stowage.model.families.removed import last_engines
from stowage.model.profile import (
    AttentionProfile,
    LatentAttentionProfile,
    LayerProfile,
    MlpProfile,
    ModelProfile,
    MoeProfile,
    StateProfile,
)

_MAX_SUGGESTED_RANKS = 16


def check_shape(profile: ModelProfile, shape: EngineShape, device: DeviceMemory) -> Refusal | None:
    """Give the first rule that the shape breaks, or None where the engine would accept it."""
    return check_layout(profile, shape, device) or check_limits(profile, shape, device)


def check_layout(profile: ModelProfile, shape: EngineShape, device: DeviceMemory) -> Refusal | None:
    """Give the first rule that the shape breaks whatever its limits are."""
    parallel = check_parallelism(
        profile,
        shape.tensor_parallel_size,
        shape.pipeline_parallel_size,
        data_parallel_size=shape.data_parallel_size,
        expert_parallel=shape.enable_expert_parallel,
    )
    return (
        parallel
        or check_context_parallelism(profile, shape.tensor_parallel_size, shape.decode_context_parallel_size)
        or check_encoders(profile, shape)
        or _check_precision(shape, device)
        or _check_cpu(profile, shape, device)
    )


@lru_cache(maxsize=1024)
def check_parallelism(
    profile: ModelProfile,
    tensor_parallel_size: int,
    pipeline_parallel_size: int,
    *,
    data_parallel_size: int = 1,
    expert_parallel: bool = False,
) -> Refusal | None:
    """Check that heads, feed-forward, experts, vocabulary and layers can be split this way."""
    tp, pp, dp = tensor_parallel_size, pipeline_parallel_size, data_parallel_size
    if min(tp, pp, dp) < 1:
        message = f"Parallel sizes are tensor {tp}, pipeline {pp} and data {dp}; each must be at least 1."
        return Refusal(Reason.INVALID_PARALLELISM, message)
    if expert_parallel and not has_experts(profile):
        message = "Expert parallelism is asked for, but the model has no experts."
        return Refusal(Reason.INVALID_PARALLELISM, message, "Leave enable_expert_parallel out.")
    problem = _indivisible(profile, tp, dp, expert_parallel)
    if problem is not None:
        hint = _what_divides(profile, tp, dp, expert_parallel)
        return Refusal(Reason.INVALID_PARALLELISM, problem, hint)
    if pp > profile.num_layers:
        message = f"Pipeline parallel size {pp} is larger than the model's {profile.num_layers} layers."
        return Refusal(Reason.INVALID_PARALLELISM, message, f"Use at most {profile.num_layers}.")
    return None


@lru_cache(maxsize=256)
def tensor_parallel_sizes(
    profile: ModelProfile, data_parallel_size: int = 1, expert_parallel: bool = False
) -> tuple[int, ...]:
    """Give the tensor parallel sizes up to 16 that the model can be split by."""
    return tuple(
        size
        for size in range(1, _MAX_SUGGESTED_RANKS + 1)
        if _indivisible(profile, size, data_parallel_size, expert_parallel) is None
    )


@lru_cache(maxsize=256)
def has_experts(profile: ModelProfile) -> bool:
    """Tell whether any layer is a mixture of experts."""
    return any(isinstance(layer.feed_forward, MoeProfile) for layer in dict.fromkeys(profile.layers))


def _what_divides(profile: ModelProfile, tp: int, dp: int, expert_parallel: bool) -> str:
    sizes = ", ".join(map(str, tensor_parallel_sizes(profile, dp, expert_parallel)))
    ways = [f"with TP {sizes}"] if sizes else []
    if not expert_parallel and has_experts(profile) and _indivisible(profile, tp, dp, True) is None:
        ways.append(f"with enable_expert_parallel at TP {tp}")
    return f"This model works {' or '.join(ways)}." if ways else "Use fewer data parallel ranks."


def _indivisible(profile: ModelProfile, tp: int, dp: int, expert_parallel: bool) -> str | None:
    for layer in dict.fromkeys(profile.layers):
        problem = _indivisible_layer(layer, tp) or _indivisible_experts(layer, tp, dp, expert_parallel)
        if problem is not None:
            return problem
    if profile.padded_vocab_size % tp:
        return f"TP {tp} does not divide the padded vocabulary of {profile.padded_vocab_size}."
    return None


def _indivisible_experts(layer: LayerProfile, tp: int, dp: int, expert_parallel: bool) -> str | None:
    """Experts are divided by TP times DP, shared ones by TP; under expert parallelism each stays whole."""
    moe, ranks = layer.feed_forward, tp * dp
    if not isinstance(moe, MoeProfile):
        return None
    if expert_parallel and moe.num_experts < ranks:
        return f"There are only {moe.num_experts} experts for {ranks} ranks."
    if not expert_parallel and moe.intermediate_size % ranks:
        by = f"TP {tp}" if dp == 1 else f"TP {tp} times DP {dp}"
        return f"{by} does not divide the expert size of {moe.intermediate_size}."
    divides_shared = not (
        RankLayout(tp, 1, 0, dp, expert_parallel).sequence_parallel_experts and _whole_shared(layer)
    )
    if divides_shared and moe.shared_intermediate_size % tp:
        return f"TP {tp} does not divide the shared expert's size of {moe.shared_intermediate_size}."
    return None


def _whole_shared(layer: LayerProfile) -> bool:
    """Tell whether ranks that send different tokens to the experts each hold the shared one whole."""
    return any(tensor.whole_in_sequence_parallel for tensor in layer.tensors)


def _indivisible_state(state: StateProfile, tp: int) -> str | None:
    """Recurrent layers are divided by heads; only a single group of Mamba 2 may be replicated."""
    if state.num_heads % tp:
        return f"TP {tp} does not divide the {state.num_heads} heads of the recurrent layers."
    if state.key_heads % tp:
        return f"TP {tp} does not divide the {state.key_heads} key heads of the recurrent layers."
    if state.num_groups > 1 and state.num_groups % tp:
        return f"TP {tp} does not divide the {state.num_groups} groups of the recurrent layers."
    if state.inner_size % tp:
        return f"TP {tp} does not divide the inner size of {state.inner_size} of the recurrent layers."
    return None


def _indivisible_layer(layer: LayerProfile, tp: int) -> str | None:
    for mixer in layer.mixers:
        if isinstance(mixer, StateProfile):
            problem = _indivisible_state(mixer, tp)
            if problem is not None:
                return problem
            continue
        if mixer.num_heads % tp:
            return f"TP {tp} does not divide the {mixer.num_heads} attention heads."
        if isinstance(mixer, LatentAttentionProfile) and mixer.output_groups % tp:
            return f"TP {tp} does not divide the {mixer.output_groups} groups of the output projection."
        if isinstance(mixer, AttentionProfile) and mixer.num_kv_heads % tp and tp % mixer.num_kv_heads:
            heads = mixer.num_kv_heads
            return f"TP {tp} neither divides the {heads} key/value heads nor is a multiple of them."
    if isinstance(layer.feed_forward, MlpProfile) and layer.feed_forward.intermediate_size % tp:
        return f"TP {tp} does not divide the feed-forward size of {layer.feed_forward.intermediate_size}."
    return None


def check_limits(profile: ModelProfile, shape: EngineShape, device: DeviceMemory) -> Refusal | None:
    """Give the first limit that the engine would not accept: lengths, batch, share of the memory."""
    if min(shape.max_model_len, shape.max_num_seqs, shape.max_num_batched_tokens) < 1:
        message = "max_model_len, max_num_seqs and max_num_batched_tokens must each be at least 1."
        return Refusal(Reason.INVALID_SPEC, message)
    if shape.max_num_batched_tokens < shape.max_num_seqs:
        message = (
            f"max_num_batched_tokens {shape.max_num_batched_tokens} is smaller than "
            f"max_num_seqs {shape.max_num_seqs}, which the engine refuses."
        )
        return Refusal(Reason.PIN_CONFLICT, message, "Raise the first or lower the second.")
    if not 0 < shape.gpu_memory_utilization <= 1:
        message = (
            f"gpu_memory_utilization is {shape.gpu_memory_utilization:g}; it must be above 0 and at most 1."
        )
        return Refusal(Reason.INVALID_SPEC, message)
    if shape.kv_cache_memory_bytes is not None and shape.kv_cache_memory_bytes < 1:
        message = f"kv_cache_memory_bytes is {shape.kv_cache_memory_bytes}; it must be at least 1."
        return Refusal(Reason.INVALID_SPEC, message)
    if shape.max_model_len > profile.max_model_len:
        message = (
            f"max_model_len {shape.max_model_len:,} is longer than the model's {profile.max_model_len:,}."
        )
        return Refusal(Reason.CONTEXT_TOO_LONG, message, f"Use at most {profile.max_model_len}.")
    if device.is_cpu and shape.kv_cache_memory_bytes is None:
        message = "On CPU nodes the size of the KV cache must be stated (kv_cache_memory_bytes)."
        return Refusal(Reason.PIN_CONFLICT, message, "Otherwise the engine takes a share of the whole node.")
    return None


def _check_precision(shape: EngineShape, device: DeviceMemory) -> Refusal | None:
    dtype = None if shape.dtype == "auto" else element_type(shape.dtype)
    if shape.dtype != "auto" and dtype is None:
        message = f"dtype {shape.dtype!r} is not known."
        return Refusal(Reason.UNSUPPORTED_DTYPE, message, "Use auto, bfloat16, float16 or float32.")
    if dtype == "bfloat16" and not device.is_cpu and device.compute_capability < (8, 0):
        message = f"{device.name} has no bfloat16 (compute capability below 8.0)."
        return Refusal(Reason.UNSUPPORTED_DTYPE, message, "Use dtype auto or float16.")
    return None


def check_release(profile: ModelProfile, version: EngineVersion) -> Refusal | None:
    """Check that the release still serves the architecture."""
    last = last_engines().get(profile.architecture)
    asked, newest = release_numbers(version.version), release_numbers(last or "")
    if asked is None or newest is None or asked[:2] <= newest[:2]:
        return None
    message = f"vLLM {version.version} does not serve {profile.architecture} any more."
    return Refusal(Reason.UNSUPPORTED_ARCHITECTURE, message, f"The last release that does is {last}.")


def _check_cpu(profile: ModelProfile, shape: EngineShape, device: DeviceMemory) -> Refusal | None:
    if not device.is_cpu:
        return None
    if profile.quantization is not None:
        message = f"Checkpoints quantised by {profile.quantization} are not sized on CPU nodes."
        return Refusal(Reason.NOT_SUPPORTED, message, "Use the unquantised checkpoint there.")
    if shape.world_size > 1:
        message = "Parallel sizes above 1 are not supported on CPU nodes."
        return Refusal(Reason.NOT_SUPPORTED, message, "Use more replicas instead.")
    return None
