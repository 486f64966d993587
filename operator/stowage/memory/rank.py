"""The terms of one rank: everything that the budget equation adds up, before a verdict.

Terms that depend on the context length (block tables) are functions of it, so that the largest context that
fits can be searched without making a new ledger for each try.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from stowage.memory.activations import activation_bytes
from stowage.memory.allocator import AllocatedBytes
from stowage.memory.cuda_graphs import graph_bytes
from stowage.memory.estimates import NOTHING, Estimate, host_overhead_bytes
from stowage.memory.kv_cache import KvGroup, KvPool, group_layers, kv_layer
from stowage.memory.layout import RankLayout
from stowage.memory.lora import lora_bytes
from stowage.memory.pipeline import stage_layers
from stowage.memory.residents import (
    block_table_bytes,
    in_use_before_bytes,
    latent_workspace_bytes,
    non_torch_bytes,
    sampler_state_bytes,
)
from stowage.memory.setting import Setting
from stowage.memory.weights import rank_weights
from stowage.model.profile import ModelProfile


@dataclass(frozen=True, slots=True)
class RankTerms:
    """What one rank holds.

    `state_bytes` are persistent buffers without block tables, allocator slack included.
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

    @property
    def name(self) -> str:
        """The rank in words: its stage where there are stages, and the parallel sizes."""
        tp, pp = self.layout.tensor_parallel_size, self.layout.pipeline_parallel_size
        if pp == 1:
            return f"rank 0 of tp{tp}"
        return f"stage {self.layout.stage} of tp{tp} pp{pp}"

    def persistent_bytes(self, max_model_len: int) -> int:
        """Give the persistent buffers at a context length: block tables grow with it."""
        rows = -(-max_model_len // self.pool.block_size)
        tables = block_table_bytes(self.max_num_seqs, rows) * len(self.pool.groups)
        return self.state_bytes + tables


def rank_terms(setting: Setting, stage: int) -> RankTerms:
    """Work out the terms of the ranks of one pipeline stage; all ranks of a stage hold the same amount."""
    shape, version = setting.shape, setting.version
    layout = RankLayout(
        shape.tensor_parallel_size,
        shape.pipeline_parallel_size,
        stage,
        shape.data_parallel_size,
        shape.enable_expert_parallel,
    )
    weights = rank_weights(setting.profile, layout, setting.dtype, version.allocator_split_limit_bytes)
    if shape.lora is not None:
        slots = lora_bytes(setting.profile, layout, shape.lora)
        weights = weights.plus(slots)
    counts_segments = version.equation == "total-consumed" and not setting.device.is_cpu
    slack = weights.segment_bytes - weights.block_bytes if counts_segments else 0
    num_layers = len(stage_layers(setting.profile.num_layers, shape.pipeline_parallel_size)[stage])
    is_cpu = setting.device.is_cpu
    return RankTerms(
        layout=layout,
        weights=weights,
        state_bytes=sampler_state_bytes(setting, layout) + latent_workspace_bytes(setting) + slack,
        max_num_seqs=shape.max_num_seqs,
        non_torch=host_overhead_bytes() if is_cpu else non_torch_bytes(shape, version),
        activation=activation_bytes(setting, layout),
        graphs=graph_bytes(shape, setting.device, version, num_layers),
        in_use_before=NOTHING if is_cpu else in_use_before_bytes(shape, version),
        pool=_pool(setting, layout),
    )


def _pool(setting: Setting, layout: RankLayout) -> KvPool:
    return KvPool(
        groups=_stage_groups(setting.profile, layout),
        block_size=setting.block_size,
        element_bytes=setting.kv_element_bytes or 0,
        window_tokens_in_flight=setting.window_tokens_in_flight,
        reserved_blocks=1 if setting.version.null_block_reserved else 0,
    )


@lru_cache(maxsize=1024)
def _stage_groups(profile: ModelProfile, layout: RankLayout) -> tuple[KvGroup, ...]:
    here = stage_layers(profile.num_layers, layout.pipeline_parallel_size)[layout.stage]
    layers = profile.layers[here.start : here.stop]
    return group_layers([kv_layer(layer, layout.tensor_parallel_size) for layer in layers])
