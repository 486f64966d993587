"""What a whole model agrees on before there are caches: block sizes, kinds of states, drafts, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stowage.api.refusal import Refusal
from stowage.memory.device import DeviceMemory
from stowage.memory.kv.cache import KvCache
from stowage.memory.setting import Setting
from stowage.memory.shape import SpeculativeSettings
from stowage.model.profile import (
    AttentionProfile,
    LatentAttentionProfile,
    LayerProfile,
    Mixer,
    ModelProfile,
    StateProfile,
)
from tests.memory.support import A100, B200, H100, NODE, shape, version
from tests.memory.test_kv_capacity import CASES, profile_of_case

WIDE = AttentionProfile(24, 4, 256)
LATENT = LatentAttentionProfile(32, 512, 128, 64, 128)
DELTA = StateProfile("gated-delta-net", 4, num_heads=48, head_dim=128, key_heads=16, key_dim=128)
KIMI = StateProfile(
    "kimi-delta", 4, num_heads=32, head_dim=128, key_heads=32, key_dim=128, state_dtype="float32"
)
MAMBA = StateProfile("mamba2", 4, 4096, 128, 64, 64, 8, state_dtype="float32", chunk_size=128)
WINDOW = AttentionProfile(32, 8, 128, sliding_window=1024)
CHUNK = AttentionProfile(32, 8, 128, chunk=8192)
FULL = AttentionProfile(32, 8, 128)
DELTA_BYTES = 10240 * 3 * 2 + 48 * 128 * 128 * 2


def model(*mixers: Mixer, drafts: tuple[Mixer, ...] = ()) -> ModelProfile:
    """Make a model of one layer for each mixer."""
    plain = profile_of_case(CASES["32 full layers"])
    layers, guesses = (tuple(LayerProfile((mixer,), None, ()) for mixer in kind) for kind in (mixers, drafts))
    return replace(plain, revision=repr((mixers, drafts)), layers=layers, draft_layers=guesses)


def cache_of(
    profile: ModelProfile, device: DeviceMemory = A100, release: str = "0.32.0", **changes: Any
) -> KvCache:
    """Give the cache of a model, which there must be."""
    found = Setting(profile, shape(**changes), device, version(release)).kv_cache
    assert isinstance(found, KvCache), found
    return found


@pytest.mark.parametrize(
    ("release", "kind", "token_bytes"),
    [
        pytest.param("0.6.6", "full", 2 * 16 * 256 * 2, id="keys and values in heads of 256, divided"),
        pytest.param("0.7.3", "latent", 576 * 2, id="the latent vector, on every rank"),
    ],
)
def test_releases_before_0_7_1_cache_latent_attention_like_any_other(
    release: str, kind: str, token_bytes: int
) -> None:
    lead = cache_of(model(LATENT), A100, release, tensor_parallel_size=2).stages[0][0].lead
    assert (lead.kind, lead.token_bytes, lead.block_size) == (kind, token_bytes, 16)


@pytest.mark.parametrize(
    ("mixers", "device", "release", "changes", "block_size"),
    [
        pytest.param((DELTA, WIDE), A100, "0.32.0", {}, 16 * 25, id="steps of a kernel block"),
        pytest.param((DELTA, WIDE), B200, "0.17.1", {}, 32 * 13, id="of 32 on Blackwell once"),
        pytest.param((DELTA, WIDE), B200, "0.18.1", {}, 16 * 25, id="of 16 there since 0.18"),
        pytest.param((DELTA, WIDE), A100, "0.32.0", {"block_size": 64}, 448, id="of a pinned block size"),
        pytest.param((DELTA, WIDE), A100, "0.32.0", {"block_size": 4096}, 4096, id="a pinned one large enough"),
        pytest.param((DELTA, WIDE), NODE, "0.25.1", {}, 128 * 4, id="of 128 on CPUs"),
        pytest.param((DELTA, WIDE), NODE, "0.26.0", {}, 128 * 7, id="with states in 32 bits on CPUs since 0.26"),
        pytest.param((KIMI, LATENT), H100, "0.32.0", {}, 128 * 15, id="of 128 beside latent attention"),
        pytest.param((KIMI, LATENT), H100, "0.26.0", {}, 16 * 118, id="of 16 before 0.27"),
        pytest.param((KIMI, LATENT), H100, "0.19.1", {}, 64 * 30, id="of 64 before 0.20"),
        pytest.param((MAMBA, FULL), A100, "0.27.1", {}, 128 * 5, id="of whole chunks where each block has a state"),
        pytest.param(
            (replace(MAMBA, chunk_size=0), FULL), A100, "0.27.1", {}, 256 * 3, id="of 256 where no chunk is stated"
        ),
        pytest.param((MAMBA, FULL), A100, "0.28.0", {}, 16 * 33, id="of kernel blocks again since 0.28"),
        pytest.param((FULL,), A100, "0.32.0", {}, 16, id="nothing to align without states"),
    ],
)  # fmt: skip
def test_block_size(
    mixers: tuple[Mixer, ...], device: DeviceMemory, release: str, changes: dict[str, Any], block_size: int
) -> None:
    assert cache_of(model(*mixers), device, release, **changes).block_size == block_size


@pytest.mark.parametrize(
    ("mixers", "release", "changes", "blocks"),
    [
        pytest.param((DELTA, WIDE), "0.14.1", {}, 1, id="one, whatever is asked, before 0.15"),
        pytest.param((DELTA, WIDE), "0.25.1", {}, 1, id="one while caching is off by default"),
        pytest.param((DELTA, WIDE), "0.32.0", {}, 2, id="two with prefix caching"),
        pytest.param((DELTA, WIDE), "0.32.0", {"enable_prefix_caching": False}, 1, id="one without"),
        pytest.param((MAMBA, FULL), "0.31.0", {}, 2, id="Mamba 2 before it saved states within a prefill"),
        pytest.param((MAMBA, FULL), "0.32.0", {}, 3, id="Mamba 2 since"),
        pytest.param((MAMBA, FULL), "0.27.1", {}, None, id="one for every block before 0.28"),
        pytest.param((DELTA, WIDE), "0.27.1", {}, 2, id="but not for delta nets"),
        pytest.param(
            (MAMBA,), "0.32.0", {}, 1, id="one in models without attention, which cache no prefixes"
        ),
    ],
)
def test_blocks_of_a_state(
    mixers: tuple[Mixer, ...], release: str, changes: dict[str, Any], blocks: int | None
) -> None:
    cache = cache_of(model(*mixers), A100, release, **changes)
    lead = next(group.lead for group in cache.stages[0] if group.lead.kind == "state")
    assert lead.state_blocks == blocks


def test_guessed_tokens_have_states_of_their_own_and_end_one_state_per_block() -> None:
    asked: dict[str, Any] = {"speculative": SpeculativeSettings("ngram", 3)}
    delta, mamba = (
        next(group.lead for group in cache_of(model(*mixers), A100, "0.27.1", **asked).stages[0])
        for mixers in ((DELTA, WIDE), (MAMBA, FULL))
    )
    assert (delta.state_blocks, mamba.state_blocks) == (5, 5)
    assert delta.state_bytes == DELTA_BYTES + 3 * 10240 * 2


def test_chained_draft_modules_keep_windows_longer() -> None:
    profile = model(WINDOW, WINDOW, drafts=(WINDOW, WINDOW))
    asked: dict[str, Any] = {"speculative": SpeculativeSettings("mtp", 3)}
    assert [
        cache_of(profile, A100, release, **asked).stages[0][0].lead.span for release in ("0.27.1", "0.28.0")
    ] == [
        1024,
        1026,
    ]
    one = model(WINDOW, WINDOW, drafts=(WINDOW,))
    assert cache_of(one, A100, "0.32.0", **asked).stages[0][0].lead.span == 1024


def test_draft_layers_are_on_the_last_stage() -> None:
    profile = model(FULL, FULL, FULL, FULL, drafts=(FULL,))
    asked: dict[str, Any] = {"speculative": SpeculativeSettings("mtp", 1), "pipeline_parallel_size": 2}
    assert [groups[0].num_layers for groups in cache_of(profile, **asked).stages] == [2, 3]


def test_a_draft_model_of_its_own() -> None:
    guess = SpeculativeSettings("eagle3", 2, model(AttentionProfile(32, 8, 64)))
    cache = cache_of(model(FULL, FULL), speculative=guess)
    assert [(group.num_layers, group.page_bytes) for group in cache.stages[0]] == [
        (3, 16 * 8 * 2 * 2 * (128 + 128 + 64))
    ]


@pytest.mark.parametrize(
    ("release", "changes", "kinds"),
    [
        pytest.param("0.9.2", {}, ["full"], id="chunks were not told apart before 0.10"),
        pytest.param("0.10.0", {}, ["chunk", "full"], id="a group of their own in 0.10.0"),
        pytest.param("0.13.0", {}, ["full"], id="merged again until 0.14"),
        pytest.param("0.32.0", {}, ["chunk", "full"], id="a group of their own since"),
        pytest.param("0.32.0", {"disable_hybrid_kv_cache_manager": True}, ["full"], id="unless that is turned off"),
        pytest.param("0.32.0", {"speculative": SpeculativeSettings("mtp", 1)}, ["full"], id="or a draft model is used"),
        pytest.param("0.32.0", {"speculative": SpeculativeSettings("ngram", 1)}, ["chunk", "full"], id="with layers"),
    ],
)  # fmt: skip
def test_local_chunks(release: str, changes: dict[str, Any], kinds: list[str]) -> None:
    cache = cache_of(model(CHUNK, FULL, drafts=(FULL,)), A100, release, **changes)
    assert [group.lead.kind for group in cache.stages[0]] == kinds


def test_layers_that_keep_nothing() -> None:
    shared, encoder = replace(FULL, shares_cache=True), replace(FULL, source="encoder")
    assert cache_of(model(FULL, shared, encoder, FULL)).stages[0][0].num_layers == 2
    found = Setting(model(shared, encoder), shape(), A100, version()).kv_cache
    assert isinstance(found, Refusal)
    assert "keeps no KV cache" in found.message


@pytest.mark.parametrize(
    ("release", "mixers", "changes", "words"),
    [
        pytest.param("0.10.1", (LATENT,), {}, "no decode context parallelism", id="before it was there"),
        pytest.param("0.32.0", (WINDOW, FULL), {}, "windowed attention", id="with windows"),
        pytest.param("0.32.0", (CHUNK, FULL), {}, "windowed attention", id="with chunks"),
    ],
)
def test_context_parallelism_that_the_cache_cannot_have(
    release: str, mixers: tuple[Mixer, ...], changes: dict[str, Any], words: str
) -> None:
    asked = shape(tensor_parallel_size=16, decode_context_parallel_size=2, **changes)
    found = Setting(model(*mixers), asked, A100, version(release)).kv_cache
    assert isinstance(found, Refusal)
    assert words in found.message


def test_windows_that_keep_all_work_with_context_parallelism() -> None:
    asked: dict[str, Any] = {"decode_context_parallel_size": 2, "disable_hybrid_kv_cache_manager": True}
    assert cache_of(model(WINDOW, FULL), tensor_parallel_size=16, **asked).stages[0][0].num_layers == 2


@pytest.mark.parametrize(
    ("release", "tokens"),
    [
        pytest.param("0.12.0", 1500, id="its own length"),
        pytest.param("0.13.0", 2048, id="a batch since 0.13"),
    ],
)
def test_room_for_an_encoder(release: str, tokens: int) -> None:
    cross = replace(FULL, source="cross", cross_tokens=1500)
    cache = cache_of(model(FULL, cross), A100, release)
    assert next(group.lead.span for group in cache.stages[0] if group.lead.kind == "cross") == tokens


@pytest.mark.parametrize(
    ("release", "device", "block_size"),
    [
        pytest.param("0.24.0", A100, 16 * 25, id="the attention's block size before 0.25"),
        pytest.param("0.25.1", A100, 16, id="the smallest kernel block after"),
        pytest.param("0.30.0", A100, 16 * 25, id="the largest that fits since 0.30"),
        pytest.param("0.30.0", B200, 64, id="which is 64 where kernels have fixed sizes"),
    ],
)
def test_block_size_of_windows_beside_larger_pages(
    release: str, device: DeviceMemory, block_size: int
) -> None:
    """Three heads of 256 beside four: the page is no whole part of the other, so it is padded."""
    odd = AttentionProfile(24, 3, 256, sliding_window=1024)
    cache = cache_of(model(DELTA, WIDE, odd), device, release, enable_prefix_caching=False)
    window = next(group.lead for group in cache.stages[0] if group.lead.kind == "window")
    assert (window.block_size, window.page_bytes) == (block_size, 16 * 25 * 4096)
