"""The cache of compressed latent attention: pages, groups and blocks as vLLM's own code forms them."""

from __future__ import annotations

import pytest

from stowage.memory.kv.compressed import groups_of, layer_caches
from stowage.memory.kv.dtype import KvFormat
from stowage.memory.kv.groups import Placed
from stowage.memory.kv.layers import LayerCache
from stowage.memory.kv.rules import kv_rules
from stowage.model.profile import ModelProfile
from tests.memory.support import GIB, version
from tests.model.support import published
from tests.model.test_latent import plain
from tests.model.test_latent_v4 import V4, WHOLE

RULES = kv_rules(version())
FLASH = {"index_topk": 512, **WHOLE}


def groups(profile: ModelProfile, kv_dtype: str = "auto") -> list[list[Placed]]:
    """Form the groups of all layers on one stage."""
    cache = LayerCache(
        tensor_parallel_size=8,
        format=KvFormat(kv_dtype, 16 if kv_dtype == "bfloat16" else 8),
        block_size=64,
        window_block_size=64,
        state_dtype_bytes=2,
        rules=RULES,
    )
    placed = [(spec, 0) for layer in profile.layers for spec in layer_caches(layer, cache)]
    return groups_of(placed, RULES)


def page_bytes(group: list[Placed]) -> int:
    """Add up the pages of a group."""
    return sum(layer.page_bytes for layer, _ in group)


def test_groups_of_deepseek_v4_flash() -> None:
    """As `_get_packed_kv_cache_groups` of vLLM 0.32.0 forms them from the specifications of its 43 layers."""
    found = [(len(group), page_bytes(group), group[0][0].block_size) for group in groups(plain(V4, **FLASH))]
    assert sorted(found) == [
        (20, 656_640, 8),
        (21, 786_240, 64),
        (22, 823_680, 64),
        (42, 870_912, 4),
        (62, 1_002_240, 256),
    ]


@pytest.mark.parametrize(
    ("tokens", "logged_gib"),
    [pytest.param(30_000, 6.66, id="needed"), pytest.param(13_528, 5.44, id="the longest that would fit")],
)
def test_blocks_of_a_request_of_a_logged_start(tokens: int, logged_gib: float) -> None:
    """vllm#44376: 5.44 GiB, 30,000 tokens need 6.66 GiB, 13,528 would fit; two batches of 8,192 in flight.

    That release (before 0.29) took 22 times one page of each size for a block, later ones the largest group.
    """
    blocks = sum(group[0][0].blocks(tokens, 2 * 8192) for group in groups(plain(V4, **FLASH)))
    assert blocks * 22 * (37_440 + 8_640 + 1_728) / GIB == pytest.approx(logged_gib, abs=5e-3)


@pytest.mark.parametrize(
    ("kv_dtype", "pages"),
    [
        pytest.param("auto", {37_440, 8_640, 32_832, 1_728}, id="8 bits by default, pages in steps of 576"),
        pytest.param("fp8", {37_440, 8_640, 32_832, 1_728}, id="8 bits asked for"),
        pytest.param("bfloat16", {65_536, 8_704, 32_768, 8_192, 2_048}, id="16 bits, in steps of 512"),
    ],
)
def test_pages(kv_dtype: str, pages: set[int]) -> None:
    found = {layer.page_bytes for group in groups(plain(V4), kv_dtype) for layer, _ in group}
    assert found == pages


def test_compressors_keep_unfinished_sums_of_as_many_tokens_as_they_read() -> None:
    spans = {
        (layer.block_size, layer.span)
        for group in groups(plain(V4))
        for layer, _ in group
        if layer.kind == "window"
    }
    assert spans == {(64, 128), (4, 8), (8, 128)}


def test_layers_without_compression_keep_a_window_only() -> None:
    profile = plain(V4, num_hidden_layers=2, compress_ratios=[0, 1, 0])
    (group,) = groups(profile)
    assert [(layer.kind, layer.span, layer.block_size) for layer, _ in group] == [("window", 128, 64)] * 2


def test_other_models_have_the_usual_groups() -> None:
    (group,) = groups(published("Qwen--Qwen3-0.6B"))
    assert {layer.kind for layer, _ in group} == {"full"}
