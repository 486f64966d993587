"""KV cache arithmetic, against published figures and worked examples."""

from __future__ import annotations

import pytest

from stowage.memory.kv_cache import KvGroup, KvLayer, KvPool, group_layers, kv_element_bytes
from tests.memory.support import A100, GIB, H100, ledger_of
from tests.model.support import TINY, profile_of, published


@pytest.mark.parametrize(
    ("folder", "tp", "bytes_per_token"),
    [
        pytest.param("meta-llama--Llama-3.1-8B-Instruct", 1, 131_072, id="Llama-3.1-8B"),
        pytest.param("meta-llama--Meta-Llama-3.1-70B", 4, 81_920, id="70B tp4"),
        pytest.param("meta-llama--Meta-Llama-3.1-70B", 8, 40_960, id="70B tp8"),
        pytest.param("meta-llama--Meta-Llama-3.1-70B", 16, 40_960, id="70B tp16 replicates its eight heads"),
        pytest.param("Qwen--Qwen3-32B", 1, 262_144, id="Qwen3-32B"),
        pytest.param("meta-llama--Llama-2-7b-chat-hf", 1, 524_288, id="Llama-2-7B without grouped heads"),
        pytest.param("mistralai--Mistral-7B-Instruct-v0.3", 1, 131_072, id="Mistral-7B-v0.3"),
        pytest.param("microsoft--phi-4", 1, 204_800, id="phi-4"),
    ],
)
def test_bytes_per_token_and_rank(folder: str, tp: int, bytes_per_token: int) -> None:
    entry = ledger_of(published(folder), A100, tensor_parallel_size=tp)
    assert entry.kv_bytes_per_token == bytes_per_token


@pytest.mark.parametrize(
    ("dtype", "factor"),
    [
        pytest.param("auto", 2, id="auto is the model's dtype"),
        pytest.param("bfloat16", 2, id="bfloat16"),
        pytest.param("fp8", 1, id="fp8 halves it"),
        pytest.param("fp8_e5m2", 1, id="fp8 with five exponent bits"),
    ],
)
def test_kv_dtypes(dtype: str, factor: int) -> None:
    entry = ledger_of(profile_of(TINY), A100, kv_cache_dtype=dtype)
    assert entry.kv_bytes_per_token == 2 * 4 * 32 * 4 * factor
    assert kv_element_bytes("int8", "bfloat16") is None


def test_tokens_of_a_logged_start() -> None:
    """vllm#15815: 7.71 GiB on one of two L40S made 3,947 blocks of Qwen2.5-32B."""
    entry = ledger_of(
        published("Qwen--Qwen2.5-32B-Instruct"),
        A100,
        tensor_parallel_size=2,
        kv_cache_memory_bytes=int(7.71 * GIB),
    )
    assert entry.num_gpu_blocks == 3947
    assert entry.block_size == 16


@pytest.mark.parametrize(
    ("release", "tokens"),
    [
        pytest.param("0.19.1", 3947 * 16, id="old releases count blocks"),
        pytest.param("0.32.0", int(3947 / (32768 / 16) * 32768), id="new ones multiply the concurrency"),
    ],
)
def test_tokens_are_counted_as_the_release_prints_them(release: str, tokens: int) -> None:
    entry = ledger_of(
        published("Qwen--Qwen2.5-32B-Instruct"),
        A100,
        release,
        tensor_parallel_size=2,
        max_model_len=32768,
        kv_cache_memory_bytes=int(7.71 * GIB),
    )
    assert entry.kv_tokens == tokens
    assert entry.max_concurrency == pytest.approx(3947 / 2048)


@pytest.mark.parametrize(
    ("release", "blocks"),
    [
        pytest.param("0.25.0", (4095 + 2048 + 15) // 16 + 1, id="one batch in flight before 0.26"),
        pytest.param("0.32.0", (4095 + 2 * 2048 + 15) // 16 + 1, id="two batches in flight after"),
    ],
)
def test_a_window_bounds_what_a_request_takes(release: str, blocks: int) -> None:
    entry = ledger_of(
        published("teknium--OpenHermes-2.5-Mistral-7B"), H100, release, max_model_len=32768, max_num_seqs=128
    )
    assert entry.num_gpu_blocks / entry.max_concurrency == pytest.approx(blocks)


def test_a_window_longer_than_the_context_costs_one_block_more() -> None:
    windowed = ledger_of(published("microsoft--Phi-3-mini-128k-instruct"), H100, max_model_len=4096)
    assert windowed.num_gpu_blocks / windowed.max_concurrency == pytest.approx(4096 / 16 + 1)


def test_the_null_block_counts_from_0_29_on() -> None:
    profile = profile_of(TINY)
    page = 16 * 2 * 4 * 32 * 2 * 4
    exact = {"max_model_len": 2048, "kv_cache_memory_bytes": 128 * page}
    assert ledger_of(profile, A100, "0.28.0", **exact).verdict == "Fits"
    entry = ledger_of(profile, A100, "0.29.0", **exact)
    assert entry.verdict == "DoesNotFit"
    assert entry.largest_max_model_len == 127 * 16


FULL, WINDOW = KvLayer(16, 128, 128), KvLayer(16, 128, 128, window=1024)
SMALL_FULL, SMALL_WINDOW = KvLayer(8, 64, 64), KvLayer(8, 64, 64, window=128)


@pytest.mark.parametrize(
    ("layers", "groups"),
    [
        pytest.param([FULL] * 32, [(FULL, 32)], id="one kind is one group"),
        pytest.param(
            [WINDOW] * 52 + [FULL] * 10,
            [(WINDOW, 10)] * 6 + [(FULL, 10)],
            id="ten full and 52 windowed layers make seven groups of ten",
        ),
        pytest.param(
            [SMALL_WINDOW, SMALL_FULL] * 18, [(SMALL_WINDOW, 18), (SMALL_FULL, 18)], id="two even kinds"
        ),
        pytest.param([FULL] * 8 + [WINDOW] * 9, [(FULL, 9), (WINDOW, 9)], id="nearly even kinds are padded"),
    ],
)
def test_groups(layers: list[KvLayer], groups: list[tuple[KvLayer, int]]) -> None:
    assert [(group.layer, group.num_layers) for group in group_layers(layers)] == groups


def test_a_pool_of_two_kinds_as_worked_out_for_a_published_model() -> None:
    """18 full and 18 windowed layers: 589,824 B a block, 9,225 blocks for 131,072 tokens and the null block."""
    groups = (KvGroup(SMALL_FULL, 18), KvGroup(SMALL_WINDOW, 18))
    pool = KvPool(groups, 16, 2, window_tokens_in_flight=2 * 8192, reserved_blocks=1)
    assert pool.bytes_per_block == 589_824
    assert pool.blocks_per_request(131_072) == 9_225
    assert pool.blocks_needed(131_072) == 9_226
    assert pool.bytes_per_token == 36_864 // 2 * 2
