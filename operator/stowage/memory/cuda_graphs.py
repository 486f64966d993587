"""CUDA graphs: which batch sizes are captured, and what that is expected to take.

The list of sizes is exact (vllm/config/vllm.py), and so is the scratch of split attention that graphs of whole steps
hold; bytes per size are the weakest term of the ledger and carry a band of half to double.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from typing import Final

from stowage.memory.basis import Basis
from stowage.memory.estimates import NOTHING, Estimate, graph_bytes_per_size
from stowage.memory.kv.attention_backend import AttentionBackend, choose_backend
from stowage.memory.kv.blocks import attention_needs
from stowage.memory.setting import Setting
from stowage.memory.shape import EngineShape
from stowage.model.profile import LatentAttentionProfile

_CEILING: Final = 512
_FINE_LIMIT: Final = 256
_REFERENCE_LAYERS: Final = 32
_OWN_STEP: Final = 16
"""Step of the sizes above 256 of architectures that set their own ceiling, in every release."""

_HOPPER: Final = 9
_BLACKWELL: Final = 10
_FLASH_ATTENTION_3: Final = frozenset({"FLASH_ATTN", "FLASH_ATTN_MLA"})


def graph_bytes(setting: Setting, num_layers_on_rank: int) -> Estimate:
    """Give what captured graphs take on a rank, whether or not the release counts it."""
    shape, version = setting.shape, setting.version
    if shape.enforce_eager or setting.device.is_cpu:
        return NOTHING
    sizes = shape.cudagraph_capture_sizes
    if sizes is None:
        own = version.capture_ceilings.get(setting.profile.architecture)
        limit = min(2 * shape.max_num_seqs, _ceiling(setting)) if own is None else own
        step = version.capture_step_above_256 if own is None else _OWN_STEP
        sizes = capture_sizes(shape.max_num_seqs, shape.max_num_batched_tokens, limit, step)
    graphs = graph_bytes_per_size().scaled(len(sizes) * num_layers_on_rank / _REFERENCE_LAYERS)
    per_token = split_bytes_per_token(setting.basis)
    if not per_token:
        return graphs
    scratch = per_token * _largest_decode(sizes, shape)
    return graphs.plus(Estimate(scratch, scratch, scratch))


@lru_cache(maxsize=4096)
def capture_sizes(
    max_num_seqs: int, max_num_batched_tokens: int, ceiling: int, step_above_256: int
) -> tuple[int, ...]:
    """Give the batch sizes that are captured by default, up to the ceiling and what a batch may have."""
    largest = min(ceiling, max_num_batched_tokens)
    sizes = {size for size in (1, 2, 4) if size <= largest}
    sizes.update(range(8, min(largest + 1, _FINE_LIMIT), 8))
    sizes.update(range(_FINE_LIMIT, largest + 1, step_above_256))
    if max_num_batched_tokens <= largest:
        sizes.add(max_num_batched_tokens)
    if max_num_seqs <= largest:
        sizes.add(max_num_seqs)
    return tuple(sorted(sizes))


@lru_cache(maxsize=4096)
def split_bytes_per_token(basis: Basis) -> int:
    """Give what attention keeps for each token of the largest graph of whole decode steps.

    FlashAttention 3 cuts a context in parts and adds up their outputs and scales in 32 bits; inside a graph the room
    for all parts is taken at capture (vLLM 0.18.1: v1/attention/backends/flash_attn.py). It runs on Hopper alone.
    """
    splits = basis.version.full_graph_splits
    if basis.device.is_cpu or basis.device.compute_capability[0] != _HOPPER or not splits:
        return 0
    question = basis.cache_question
    rotary = max(
        (m.qk_rope_head_dim for m in question.mixers() if isinstance(m, LatentAttentionProfile)), default=0
    )
    widths = [0]
    for needs in attention_needs(question):
        backend = choose_backend(needs, question.where)
        if isinstance(backend, AttentionBackend) and backend.name in _FLASH_ATTENTION_3:
            widths.append(needs.num_heads * (needs.head_dim - rotary * (needs.attention != "heads") + 1))
    return 4 * splits * max(widths)


def _largest_decode(sizes: tuple[int, ...], shape: EngineShape) -> int:
    """Give the largest captured size that whole decode steps reach: a token of each request, and what is guessed."""
    guessed = shape.speculative.num_speculative_tokens if shape.speculative else 0
    most = shape.max_num_seqs * (1 + guessed)
    ordered = sorted(sizes)
    reached = bisect_right(ordered, most)
    return ordered[reached - 1] if reached else 0


def _ceiling(setting: Setting) -> int:
    blackwell = setting.device.compute_capability[0] == _BLACKWELL
    return setting.version.blackwell_capture_ceiling if blackwell else _CEILING
