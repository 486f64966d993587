"""The terms of one rank: everything that the budget equation adds up, before a verdict.

Terms that depend on the context length (block tables) are functions of it, so that the largest context that
fits can be searched without making a new ledger for each try.
"""

from __future__ import annotations

from dataclasses import dataclass

from stowage.memory.activations import activation_bytes
from stowage.memory.allocator import AllocatedBytes
from stowage.memory.cuda_graphs import graph_bytes
from stowage.memory.encoder import absent_modalities
from stowage.memory.estimates import NOTHING, Estimate, host_overhead_bytes
from stowage.memory.kv_pool import KvPool
from stowage.memory.layout import RankLayout
from stowage.memory.lora import lora_bytes
from stowage.memory.pipeline import stage_layers
from stowage.memory.quantized_kernels import kernels_of
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
    shape, version = setting.shape, setting.version
    layout = _layout(setting, stage)
    weights, guessed = _weights(setting, layout)
    counts_segments = version.equation == "total-consumed" and not setting.device.is_cpu
    slack = weights.segment_bytes - weights.block_bytes if counts_segments else 0
    num_layers = len(stage_layers(setting.profile.num_layers, shape.pipeline_parallel_size)[stage])
    is_cpu = setting.device.is_cpu
    return RankTerms(
        layout=layout,
        weights=weights,
        state_bytes=_buffers(setting, layout) + slack,
        max_num_seqs=shape.max_num_seqs,
        non_torch=setting.learnt("non_torch", _outside_torch(setting)),
        activation=setting.learnt("activation", activation_bytes(setting, layout)),
        graphs=setting.learnt("cuda_graph", graph_bytes(shape, setting.device, version, num_layers)),
        in_use_before=NOTHING if is_cpu else in_use_before_bytes(shape, version),
        pool=setting.kv_pool(stage),
        guessed_weights=guessed,
        context_bytes=0 if is_cpu else gather_bytes_per_token(setting.profile),
    )


def _buffers(setting: Setting, layout: RankLayout) -> int:
    """Give the buffers of the runner and of the model that do not depend on the context length."""
    batch = batch_buffer_bytes(setting.profile, setting.element_bytes) * setting.shape.max_num_batched_tokens
    return sampler_state_bytes(setting, layout) + latent_workspace_bytes(setting) + batch


def _outside_torch(setting: Setting) -> Estimate:
    if setting.device.is_cpu:
        return host_overhead_bytes()
    return non_torch_bytes(setting.shape, setting.version, setting.device)


def _layout(setting: Setting, stage: int) -> RankLayout:
    shape = setting.shape
    return RankLayout(
        shape.tensor_parallel_size,
        shape.pipeline_parallel_size,
        stage,
        shape.data_parallel_size,
        shape.enable_expert_parallel,
        absent_modalities(setting.profile, shape),
    )


def _weights(setting: Setting, layout: RankLayout) -> tuple[AllocatedBytes, Estimate]:
    """Give the weights of the model, of what guesses tokens for it, and of adapter slots.

    Beside them: how far those of its parts that are assumed may be off, around 0.
    """
    shape, profile, dtype = setting.shape, setting.profile, setting.dtype
    limit, kernels = setting.version.allocator_split_limit_bytes, kernels_of(setting.device, setting.version)
    model = rank_weights(profile, layout, dtype, limit, kernels)
    draft = draft_weights(profile, layout, dtype, shape.speculative, limit, kernels)
    off = profile.weight_band * model.tensor_bytes
    guessed = uncertain_draft_bytes(profile, shape.speculative, draft.tensor_bytes).plus(
        Estimate(0.0, -off, off)
    )
    weights = model.joined(draft)
    if shape.lora is None:
        return weights, guessed
    return weights.plus(lora_bytes(profile, layout, shape.lora, setting.version)), guessed
