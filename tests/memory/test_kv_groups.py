"""Layers, groups and pools of the KV cache, by direct example; whole models are in test_kv_capacity.py."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stowage.memory.kv.groups import KvGroup, UngroupableError, form_groups, project
from stowage.memory.kv.layers import KvLayer
from stowage.memory.kv.pool import KvPool
from stowage.memory.kv.rules import KvRules, kv_rules
from tests.memory.support import version

RULES = kv_rules(version())
FULL = KvLayer("full", 16, 16 * 256 * 2)
WINDOW = KvLayer("window", 16, 16 * 256 * 2, span=1024)
SMALL = KvLayer("window", 16, 8 * 128 * 2, span=128)
LATENT = KvLayer("latent", 64, 576 * 2)


def sizes(
    layers: list[KvLayer], rules: KvRules = RULES, *, hybrid_manager: bool = True
) -> list[tuple[str, int]]:
    """Give kind and number of layers of every group."""
    groups = form_groups([(layer, 0) for layer in layers], rules, hybrid_manager=hybrid_manager)
    return [(group[0][0].kind, len(group)) for group in groups]


@pytest.mark.parametrize(
    ("layers", "groups"),
    [
        pytest.param([FULL] * 32, [("full", 32)], id="one kind is one group"),
        pytest.param(
            [WINDOW] * 52 + [FULL] * 10,
            [("window", 9)] * 4 + [("window", 8)] * 2 + [("full", 10)],
            id="ten full and 52 windowed layers make seven groups",
        ),
        pytest.param([SMALL, replace(FULL, token_bytes=2048)] * 18, [("window", 18), ("full", 18)], id="even kinds"),
        pytest.param([FULL] * 8 + [WINDOW] * 9, [("full", 8), ("window", 9)], id="nearly even kinds stay whole"),
        pytest.param([FULL] * 8 + [WINDOW] * 12, [("full", 8), ("window", 6), ("window", 6)], id="half as many more"),
        pytest.param([LATENT] * 3 + [replace(LATENT, token_bytes=132)] * 3, [("latent", 6)], id="one type, two sizes"),
    ],
)  # fmt: skip
def test_groups(layers: list[KvLayer], groups: list[tuple[str, int]]) -> None:
    assert sizes(layers) == groups


def test_layers_of_a_kind_are_dealt_out_in_turn() -> None:
    """So that each pipeline stage has a like share of each group."""
    placed = [(WINDOW, stage) for stage in (0, 0, 1, 1)] + [(FULL, 0), (FULL, 1)]
    strided = form_groups(placed, RULES)
    consecutive = form_groups(placed, replace(RULES, stride_groups=False))
    assert [[stage for _, stage in group] for group in strided] == [[0, 1], [0, 1], [0, 1]]
    assert [[stage for _, stage in group] for group in consecutive] == [[0, 0], [1, 1], [0, 1]]
    assert project(strided, 0) == (
        KvGroup(WINDOW, 1, WINDOW.page_bytes, copies=2),
        KvGroup(FULL, 1, FULL.page_bytes),
    )
    assert project(strided, None)[0].num_layers == 2


@pytest.mark.parametrize(
    ("small", "block_size", "page_tokens"),
    [
        pytest.param(
            replace(SMALL, token_bytes=FULL.token_bytes // 4), 64, 64, id="a quarter: four times the tokens"
        ),
        pytest.param(
            replace(SMALL, token_bytes=FULL.token_bytes * 2 // 3), 16, 24, id="no whole ratio: padding"
        ),
    ],
)
def test_pages_are_brought_to_one_size(small: KvLayer, block_size: int, page_tokens: int) -> None:
    groups = form_groups([(FULL, 0), (small, 0)], RULES)
    fitted = groups[1][0][0]
    assert fitted.page_bytes == FULL.page_bytes
    assert fitted.block_size == block_size
    assert fitted.page_bytes // small.token_bytes == page_tokens


def test_states_are_padded_and_never_take_more_tokens() -> None:
    """A draft layer with larger pages than the attention that states were padded to."""
    state = KvLayer("state", 16, 0, state_bytes=1000, padded_bytes=FULL.page_bytes)
    large = replace(FULL, token_bytes=2 * FULL.token_bytes)
    groups = form_groups([(state, 0), (FULL, 0), (large, 0)], RULES)
    found = {group[0][0].kind: group[0][0] for group in groups[:1]}["state"]
    assert (found.block_size, found.page_bytes) == (16, large.page_bytes)
    assert [group[0][0].block_size for group in groups[1:]] == [32, 16]


def test_latent_pages_are_not_padded_and_windows_beside_them_keep_all() -> None:
    assert sizes([LATENT] * 4 + [replace(SMALL, block_size=64)]) == [("latent", 5)]
    with pytest.raises(UngroupableError):
        sizes([LATENT] * 4 + [replace(SMALL, block_size=64)], replace(RULES, unify_pages="ratio"))


def test_without_the_hybrid_manager_windows_keep_all() -> None:
    assert sizes([WINDOW] * 5 + [FULL], hybrid_manager=False) == [("full", 6)]
    assert sizes([WINDOW] * 5, hybrid_manager=False) == [("window", 5)]
    state = KvLayer("state", 16, 0, state_bytes=1000, padded_bytes=FULL.page_bytes)
    with pytest.raises(UngroupableError):
        sizes([state, FULL], hybrid_manager=False)


@pytest.mark.parametrize(
    ("layer", "tokens", "blocks"),
    [
        pytest.param(FULL, 1000, 63, id="every token"),
        pytest.param(FULL, 1008, 63, id="whole blocks"),
        pytest.param(WINDOW, 100_000, -(-(1023 + 4096) // 16) + 1, id="a window, what is in flight, and one block"),
        pytest.param(WINDOW, 1000, 64, id="a window longer than the request"),
        pytest.param(replace(WINDOW, kind="chunk"), 100_000, (1024 + 4096) // 16, id="a chunk starts at a block"),
        pytest.param(replace(FULL, kind="cross", span=1500), 9, 94, id="the encoder's length, whatever the request"),
        pytest.param(KvLayer("state", 16, 0, state_bytes=5, state_blocks=3), 100_000, 3, id="states"),
        pytest.param(
            KvLayer("state", 16, 0, state_bytes=5, state_blocks=None), 160, 10, id="one for each block"
        ),
    ],
)  # fmt: skip
def test_blocks_of_one_request(layer: KvLayer, tokens: int, blocks: int) -> None:
    assert layer.blocks(tokens, tokens_in_flight=4096) == blocks


def test_context_ranks_share_the_tokens_of_a_request() -> None:
    assert FULL.blocks(1001, 0, context_parallel_size=8) == 8
    assert FULL.blocks(1025, 0, context_parallel_size=8) == 9


def pool(*groups: KvGroup, rules: KvRules = RULES, checked: tuple[KvGroup, ...] = ()) -> KvPool:
    """Make a pool of these groups with 8,192 tokens in flight, twice."""
    return KvPool(
        groups=groups,
        checked=checked,
        rules=rules,
        tokens_in_flight=2 * 8192,
        context_parallel_size=1,
        reserved_blocks=1,
        prints_concurrency=True,
        bytes_per_block=max(group.page_bytes for group in groups),
        block_size=16,
    )


HALF = replace(FULL, token_bytes=2 * 8 * 64 * 2)
SHORT = replace(SMALL, token_bytes=2 * 8 * 64 * 2)
BOTH = (KvGroup(HALF, 18, 18 * HALF.page_bytes), KvGroup(SHORT, 18, 18 * SHORT.page_bytes))


def test_a_pool_of_two_kinds_as_worked_out_for_a_published_model() -> None:
    """18 full and 18 windowed layers: 589,824 B a block, 9,225 blocks for 131,072 tokens and the null block."""
    made = pool(*BOTH)
    assert made.bytes_per_block == 589_824
    assert made.blocks_per_request(131_072) == 9_225
    assert made.needed_bytes(131_072) == 9_226 * 589_824
    assert made.bytes_per_token == 36_864
    assert made.num_groups == 2
    assert made.table_entries(131_072) == 2 * 8_192


@pytest.mark.parametrize(
    ("check", "checked", "blocks"),
    [
        pytest.param("groups", (), 9_225, id="groups: what a request takes"),
        pytest.param("first-group", (KvGroup(HALF, 36, 2 * BOTH[0].page_bytes),), 16_384, id="the first of all stages"),
        pytest.param("first-group", (BOTH[1],), 9_225, id="a first group that needs less"),
        pytest.param("layers", (KvGroup(HALF, 1, HALF.page_bytes, 18),), 9_225, id="layers that need less"),
    ],
)  # fmt: skip
def test_what_a_release_checks_and_what_a_request_takes(
    check: str, checked: tuple[KvGroup, ...], blocks: int
) -> None:
    made = pool(*BOTH, rules=replace(RULES, check=check), checked=checked)
    assert made.needed_bytes(131_072) == (blocks + 1) * made.bytes_per_block


def test_models_without_attention_count_states_by_the_context() -> None:
    state = KvGroup(KvLayer("state", 16, 0, state_bytes=1000), 4, 4000)
    made = replace(pool(state), prints_concurrency=False)
    assert made.tokens(10, 4096) == 10 * 4096
    assert made.concurrency(10, 4096) == 10
