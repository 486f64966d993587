"""Buffers that stay on the device besides weights and cache, by hand for the shapes of published models."""

from __future__ import annotations

import pytest

from stowage.memory.rank import rank_terms
from stowage.memory.residents import batch_buffer_bytes, gather_bytes_per_token
from stowage.memory.setting import Setting
from tests.memory.support import H100, ledger_of, shape, version
from tests.model.support import published

SPARSE, COMPRESSED, DENSE = "deepseek-ai--DeepSeek-V3.2", "deepseek-ai--DeepSeek-V4-Flash", "Qwen--Qwen3-32B"
PER_LAYER = "google--gemma-4-E4B-it"


@pytest.mark.parametrize(
    ("folder", "per_token"),
    [
        pytest.param(SPARSE, 4 * 2048, id="indices of the tokens that were chosen"),
        pytest.param(COMPRESSED, 4 * 512, id="fewer where vectors are compressed"),
        pytest.param(PER_LAYER, 2 * 42 * 256, id="a small vector for each layer beside images"),
        pytest.param("google--gemma-4-E2B-it-text", 0, id="not where there are no images"),
        pytest.param(DENSE, 0, id="nothing of the kind"),
    ],
)
def test_buffers_of_a_batch(folder: str, per_token: int) -> None:
    assert batch_buffer_bytes(published(folder), 2) == per_token


@pytest.mark.parametrize(
    ("folder", "per_token"),
    [
        pytest.param(SPARSE, 5 * 2 * 576, id="latent vectors of five contexts in 16 bits"),
        pytest.param(COMPRESSED, 40 * 132 // 4, id="keys of forty, one for every four tokens"),
        pytest.param("deepseek-ai--DeepSeek-R1", 0, id="nothing without an indexer"),
    ],
)
def test_buffers_of_a_context(folder: str, per_token: int) -> None:
    assert gather_bytes_per_token(published(folder)) == per_token


def test_a_rank_keeps_them_all() -> None:
    asked = shape(tensor_parallel_size=8, max_num_batched_tokens=8192, max_model_len=4096, enforce_eager=True)
    terms = rank_terms(Setting(published(SPARSE), asked, H100, version("0.26.0")), 0)
    more = terms.persistent_bytes(8192) - terms.persistent_bytes(4096)
    assert more >= 4096 * 5 * 2 * 576
    doubled = shape(tensor_parallel_size=8, max_num_batched_tokens=16384, enforce_eager=True)
    larger = rank_terms(Setting(published(SPARSE), doubled, H100, version("0.26.0")), 0)
    assert larger.state_bytes - terms.state_bytes == 8192 * 4 * 2048


def test_profiling_sets_room_aside_for_sparse_attention_from_0_20_on() -> None:
    """512 MiB for an indexer's scores, and the context that dense latent attention pretends in all releases."""
    limits = {"tensor_parallel_size": 8, "max_num_seqs": 1, "max_num_batched_tokens": 64}
    before, since = (
        ledger_of(published(SPARSE), H100, release, **limits).activation_bytes
        for release in ("0.19.1", "0.20.0")
    )
    states = 64 * 3 * 7168 * 2
    queries, context = 64 * 16 * (128 + 64 + 128), 8 * 2048 * 16 * (128 + 128)
    index_queries, experts = 64 * 64 * 128 * (2 + 1), 64 * 8 * (7168 + 7168) * 2
    assert since == states + 2 * (queries + context) + index_queries + experts + 512 * 2**20
    assert since - before > 512 * 2**20
