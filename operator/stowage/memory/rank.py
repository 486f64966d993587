"""The terms of one rank: everything that the budget equation adds up, before a verdict.

Terms that depend on the context length (block tables) are functions of it, so that the largest context that
fits can be searched without making a new ledger for each try.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from stowage.memory.activations import activation_bytes
from stowage.memory.allocator import AllocatedBytes
from stowage.memory.basis import Basis
from stowage.memory.cuda_graphs import graph_bytes
from stowage.memory.encoder import absent_modalities
from stowage.memory.estimates import NOTHING, Estimate, host_overhead_bytes
from stowage.memory.kv.pool import KvPool
from stowage.memory.layout import RankLayout
from stowage.memory.lora import lora_bytes
from stowage.memory.pipeline import stage_layers
from stowage.memory.quantized.kernels import kernels_of
from stowage.memory.residents import (
    batch_buffer_bytes,
    block_table_bytes,
    gather_bytes_per_token,
    in_use_before_bytes,
    latent_workspace_bytes,
    non_torch_bytes,
    sampler_state_bytes,
)
from stowage.memory.setting import Setting
from stowage.memory.speculation import draft_weights, uncertain_draft_bytes
from stowage.memory.weights import rank_weights


@dataclass(frozen=True, slots=True)
class RankTerms:
    """What one rank holds.

    `state_bytes` are persistent buffers without block tables, allocator slack included. `guessed_weights` is
    how far the part of the weights that is not known but assumed may be off, around 0.
    `context_bytes` are those of buffers for each token of the longest context, block tables not counted.
    """

    layout: RankLayout
    weights: AllocatedBytes
    state_bytes: int
    max_num_seqs: int
    non_torch: Estimate
    activation: Estimate
    graphs: Estimate
    in_use_before: Estimate
    pool: KvPool
    guessed_weights: Estimate = NOTHING
    context_bytes: int = 0

    @property
    def name(self) -> str:
        """The rank in words: its stage where there are stages, and the parallel sizes."""
        tp, pp = self.layout.tensor_parallel_size, self.layout.pipeline_parallel_size
        if pp == 1:
            return f"rank 0 of tp{tp}"
        return f"stage {self.layout.stage} of tp{tp} pp{pp}"

    def persistent_bytes(self, max_model_len: int) -> int:
        """Give the persistent buffers at a context length: block tables grow with it."""
        entries = self.pool.table_entries(max_model_len)
        tables = block_table_bytes(self.max_num_seqs, entries)
        return self.state_bytes + tables + self.context_bytes * max_model_len


def rank_terms(setting: Setting, stage: int) -> RankTerms:
    """Work out the terms of the ranks of one pipeline stage; all ranks of a stage hold the same amount."""
    shape = setting.shape
    fixed = _fixed_terms(setting.basis, stage)
    batch = fixed.batch_bytes * shape.max_num_batched_tokens
    buffers = sampler_state_bytes(setting, fixed.layout) + latent_workspace_bytes(setting) + batch
    return RankTerms(
        layout=fixed.layout,
        weights=fixed.weights,
        state_bytes=buffers + fixed.slack_bytes,
        max_num_seqs=shape.max_num_seqs,
        non_torch=setting.learnt("non_torch", fixed.non_torch),
        activation=setting.learnt("activation", activation_bytes(setting, fixed.layout)),
        graphs=setting.learnt("cuda_graph", graph_bytes(setting, fixed.num_layers)),
        in_use_before=fixed.in_use_before,
        pool=setting.kv_pool(stage),
        guessed_weights=fixed.guessed_weights,
        context_bytes=fixed.context_bytes,
    )


@dataclass(frozen=True, slots=True)
class _FixedTerms:
    """What a rank holds whatever the limits of the server; `batch_bytes` are for each token of a batch."""

    layout: RankLayout
    weights: AllocatedBytes
    guessed_weights: Estimate
    slack_bytes: int
    num_layers: int
    non_torch: Estimate
    in_use_before: Estimate
    batch_bytes: int
    context_bytes: int


@lru_cache(maxsize=4096)
def _fixed_terms(basis: Basis, stage: int) -> _FixedTerms:
    profile, shape, version, device = basis.profile, basis.shape, basis.version, basis.device
    layout = _layout(basis, stage)
    weights, guessed = _weights(basis, layout)
    counts_segments = version.equation == "total-consumed" and not device.is_cpu
    return _FixedTerms(
        layout=layout,
        weights=weights,
        guessed_weights=guessed,
        slack_bytes=weights.segment_bytes - weights.block_bytes if counts_segments else 0,
        num_layers=len(stage_layers(profile.num_layers, shape.pipeline_parallel_size)[stage]),
        non_torch=host_overhead_bytes()
        if device.is_cpu
        else non_torch_bytes(shape, version, device, basis.runner),
        in_use_before=NOTHING if device.is_cpu else in_use_before_bytes(shape, version, device),
        batch_bytes=batch_buffer_bytes(profile, basis.element_bytes),
        context_bytes=0 if device.is_cpu else gather_bytes_per_token(profile),
    )


def _layout(basis: Basis, stage: int) -> RankLayout:
    shape = basis.shape
    return RankLayout(
        shape.tensor_parallel_size,
        shape.pipeline_parallel_size,
        stage,
        shape.data_parallel_size,
        shape.enable_expert_parallel,
        absent_modalities(basis.profile, shape),
    )


def _weights(basis: Basis, layout: RankLayout) -> tuple[AllocatedBytes, Estimate]:
    """Give the weights of the model, of what guesses tokens for it, and of adapter slots.

    Beside them: how far those of its parts that are assumed may be off, around 0.
    """
    shape, profile, dtype = basis.shape, basis.profile, basis.dtype
    limit, kernels = basis.version.allocator_split_limit_bytes, kernels_of(basis.device, basis.version)
    model = rank_weights(profile, layout, dtype, limit, kernels)
    draft = draft_weights(profile, layout, dtype, shape.speculative, limit, kernels)
    off = profile.weight_band * model.tensor_bytes
    guessed = uncertain_draft_bytes(profile, shape.speculative, draft.tensor_bytes).plus(
        Estimate(0.0, -off, off)
    )
    weights = model.joined(draft)
    if shape.lora is None:
        return weights, guessed
    return weights.plus(lora_bytes(profile, layout, shape.lora, basis.version)), guessed
