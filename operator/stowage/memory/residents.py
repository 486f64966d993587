"""What stays on a device besides weights, KV cache and graphs.

Three kinds: buffers of the model runner (torch, exact), growth outside the allocator (kernels, handles,
communicators: an estimate), and what was in use before the engine took its first look (context, and from
0.11 on the communicators). Which of them come out of the budget depends on the release; budget.py decides.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from stowage.memory.activations import latent_workspace_tokens
from stowage.memory.collectives import fused_all_reduce_bytes
from stowage.memory.device import DeviceMemory
from stowage.memory.estimates import (
    Estimate,
    context_bytes,
    nccl_bytes,
    non_torch_growth_bytes,
    trial_capture_bytes,
    unified_growth_bytes,
    v2_state_bytes_per_logit,
)
from stowage.memory.layer_peak import distinct_layers
from stowage.memory.layout import RankLayout
from stowage.memory.release.engine_version import EngineVersion
from stowage.memory.setting import Setting
from stowage.memory.shape import EngineShape
from stowage.model.profile import LatentAttentionProfile, ModelProfile

_PER_LAYER_TABLE: Final = "embed_tokens_per_layer.weight"
_GATHERED_KEYS: Final = 40
_GATHERED_LATENTS: Final = 5
_MULTICASTS: Final = (9, 0)
"""GPUs whose switches reduce and multicast (NVLink SHARP), from this compute capability on."""


def sampler_state_bytes(setting: Setting, layout: RankLayout) -> int:
    """Give the bytes that the V2 runner keeps for penalties and token masks, on the last stage."""
    if not layout.is_last or setting.runner != "V2":
        return 0
    logits = setting.shape.max_num_seqs * setting.profile.padded_vocab_size
    return int(v2_state_bytes_per_logit() * logits)


def latent_workspace_bytes(setting: Setting) -> int:
    """Give the workspace for the context of chunked prefills that latent attention keeps on every rank."""
    width = _workspace_width(setting.profile)
    if not width or setting.device.is_cpu or setting.version.latent_as_heads:
        return 0
    return latent_workspace_tokens(setting) * width * setting.element_bytes


@lru_cache(maxsize=256)
def _workspace_width(profile: ModelProfile) -> int:
    """Give the elements of one token in that workspace; compressed attention gathers what it reads elsewhere."""
    latent = (
        mixer.latent_dim
        for layer in distinct_layers(profile)
        for mixer in layer.mixers
        if isinstance(mixer, LatentAttentionProfile) and mixer.sliding_window is None
    )
    return max(latent, default=0)


@lru_cache(maxsize=256)
def batch_buffer_bytes(profile: ModelProfile, element_bytes: int) -> int:
    """Give the bytes that buffers of the model keep for each token of a batch.

    Indices of the tokens that sparse attention chose, 32 bits each, once for all layers (deepseek_v2.py,
    topk_indices_buffer); and where images share a batch with text, the per-layer inputs of all layers
    (gemma4_mm.py, per_layer_embeddings).
    """
    mixers = (mixer for layer in distinct_layers(profile) for mixer in layer.mixers)
    chosen = [m.index_topk or 0 for m in mixers if isinstance(m, LatentAttentionProfile)]
    tables = (tensor for tensor in profile.outer_tensors if tensor.name.endswith(_PER_LAYER_TABLE))
    width = next((tensor.shape[1] for tensor in tables), 0) if profile.encoders else 0
    return 4 * max(chosen, default=0) + width * element_bytes


@lru_cache(maxsize=256)
def gather_bytes_per_token(profile: ModelProfile) -> int:
    """Give the bytes that sparse attention keeps for each token of the longest context.

    A workspace for the indexer's keys of 40 such contexts, or for the latent vectors of 5 in 16 bits, whichever is
    larger (v1/attention/backends/mla/indexer.py::get_max_prefill_buffer_size, flashmla_sparse.py); compressed
    vectors are fewer by their ratio.
    """
    sizes = [0]
    for layer in distinct_layers(profile):
        for mixer in layer.mixers:
            if isinstance(mixer, LatentAttentionProfile) and mixer.index_head_dim:
                record = mixer.index_head_dim + mixer.index_head_dim // 128 * 4
                gathered = max(_GATHERED_KEYS * record, _GATHERED_LATENTS * 2 * mixer.latent_dim)
                sizes.append(gathered // max(1, mixer.tokens_per_state))
    return max(sizes)


def block_table_bytes(max_num_seqs: int, blocks_per_row: int) -> int:
    """Give the bytes of a block table: one 32-bit number for each block that a request may have."""
    return 4 * max_num_seqs * blocks_per_row


def non_torch_bytes(
    shape: EngineShape, version: EngineVersion, device: DeviceMemory, runner: str = "V1"
) -> Estimate:
    """Give the growth outside the allocator that the release's budget counts.

    Pipeline stages open no channels to speak of while they are profiled: only ranks that reduce together count.
    """
    growth = non_torch_growth_bytes(shape.world_size // shape.pipeline_parallel_size)
    growth = growth.plus(unified_growth_bytes(device.compute_capability))
    growth = growth.plus(fused_all_reduce_bytes(shape, version, device))
    if version.profiles_graphs and runner == "V1" and not shape.enforce_eager:
        growth = growth.plus(trial_capture_bytes())
    if version.snapshot == "after-nccl":
        return growth
    return growth.plus(nccl_bytes(shape.world_size))


def in_use_before_bytes(shape: EngineShape, version: EngineVersion, device: DeviceMemory) -> Estimate:
    """Give what this process itself has in use when the release takes its first snapshot."""
    if version.snapshot != "after-nccl":
        return context_bytes()
    multicasts = device.switched and device.compute_capability >= _MULTICASTS
    return context_bytes().plus(nccl_bytes(shape.world_size, multicasts))
