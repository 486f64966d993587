"""Bytes of the state that a recurrent layer keeps, and the block size that hybrids derive from it.

A state (last inputs of the convolution, and the recurrent state) takes a fixed number of bytes whatever the
length of the request. The engine keeps it in the same pool as keys and values, one state in one block, so
hybrids raise the tokens of an attention block until the block is at least as large as a state. Follows
vllm/model_executor/layers/mamba/mamba_utils.py and vllm/platforms/interface.py::_align_hybrid_block_size
(0.32.0); what older releases do otherwise is in kv/state_rules.toml. Exact arithmetic: nothing is an estimate.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Final

from stowage.memory.release.engine_version import release_numbers
from stowage.model.dtype import ELEMENT_BYTES
from stowage.model.profile import StateProfile

LATENT_BLOCK_STEP: Final = 128
"""Tokens that blocks of hybrids with latent attention are a multiple of: its decode kernels need it."""

_PREFILL_CHECKPOINT: Final = frozenset({"mamba2"})
"""Kinds that write one more state from within a prefill (mamba_mixer2.py::get_kv_cache_spec, 0.32.0)."""


def state_bytes(
    state: StateProfile,
    tensor_parallel_size: int,
    cache_dtype_bytes: int,
    num_speculative_tokens: int = 0,
    *,
    release: str | None = None,
) -> int:
    """Give the bytes of one state of one layer on one rank, without padding.

    `cache_dtype_bytes` are those of `--mamba-cache-dtype`, which is the model's dtype under auto, whatever
    `--kv-cache-dtype` says. The recurrent part is kept in `state.state_dtype` where the model asks for one.
    `release` None: the newest one. The layout must have passed `constraints`: heads or inner size are divisible.
    """
    rows = max(0, state.conv_kernel - 1)
    if _holds(state.kind, "drafts", release, absent=False):
        rows += num_speculative_tokens
    asked = state.state_dtype if _holds(state.kind, "own_dtype", release, absent=True) else None
    recurrent_bytes = cache_dtype_bytes if asked is None else ELEMENT_BYTES[asked]
    conv = rows * (_conv_channels(state, tensor_parallel_size) // tensor_parallel_size)
    return conv * cache_dtype_bytes + _recurrent_elements(state, tensor_parallel_size) * recurrent_bytes


def _holds(kind: str, rule: str, release: str | None, *, absent: bool) -> bool:
    """Tell whether a rule of kv/state_rules.toml holds in a release; unknown names count as the newest."""
    since = _rules()[kind].get(rule)
    if since is None:
        return absent
    numbers, first = release_numbers(release) if release else None, release_numbers(since)
    return numbers is None or first is None or numbers >= first


@cache
def _rules() -> Mapping[str, Mapping[str, str]]:
    text = files("stowage.memory.kv").joinpath("state_rules.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def states_per_request(
    state: StateProfile,
    *,
    prefix_caching: bool,
    num_speculative_tokens: int = 0,
    prefill_checkpoint: bool = True,
) -> int:
    """Give the states (one block each) that a running request holds in a group of such layers.

    With prefix caching states are kept at block boundaries ("align"), so the last boundary's stays besides the
    running one, and some kinds may save one more inside a prefill. Each guessed token has its own.
    `prefill_checkpoint` False: a release that does not save states inside a prefill.
    """
    if not prefix_caching:
        return 1 + num_speculative_tokens
    return 2 + num_speculative_tokens + (prefill_checkpoint and state.kind in _PREFILL_CHECKPOINT)


def hybrid_block_size(
    largest_state_bytes: int,
    attention_token_bytes: int,
    *,
    block_size: int,
    kernel_block_size: int = 16,
    latent: bool = False,
) -> int:
    """Give the tokens of a block in a model that has attention and recurrent layers.

    The least multiple of the block size whose page of one attention layer (`attention_token_bytes` a token,
    on one rank) holds a state. State pages are then padded to `block × attention_token_bytes`.
    `block_size` is what the backend prefers or the user asked for, `kernel_block_size` the smallest that its
    kernels take; `latent`: the attention is MLA.
    """
    if largest_state_bytes == 0:
        return block_size
    step = max(kernel_block_size, block_size, LATENT_BLOCK_STEP if latent else 0)
    tokens = step * -(-largest_state_bytes // (step * attention_token_bytes))
    return max(block_size, -(-tokens // kernel_block_size) * kernel_block_size)


def groups_on_ranks(num_groups: int, tensor_parallel_size: int) -> int:
    """Give the groups of a Mamba 2 layer over all ranks: replicated where they cannot be divided evenly."""
    if num_groups % tensor_parallel_size == 0:
        return num_groups
    return tensor_parallel_size


def _conv_channels(state: StateProfile, tensor_parallel_size: int) -> int:
    match state.kind:
        case "mamba2":
            groups = groups_on_ranks(state.num_groups, tensor_parallel_size)
            return state.inner_size + 2 * groups * state.state_size
        case "gated-delta-net" | "kimi-delta":
            return 2 * state.key_heads * state.key_dim + state.num_heads * state.head_dim
    return state.inner_size


def _recurrent_elements(state: StateProfile, tensor_parallel_size: int) -> int:
    heads = state.num_heads // tensor_parallel_size
    match state.kind:
        case "mamba1":
            return state.inner_size // tensor_parallel_size * state.state_size
        case "mamba2":
            return heads * state.head_dim * state.state_size
        case "gated-delta-net":
            return heads * state.head_dim * state.key_dim
        case "kimi-delta" | "lightning":
            return heads * state.head_dim * state.head_dim
    return 0
