"""The KV cache of published models: bytes per token, blocks, and the tokens that logged starts printed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stowage.api.refusal import Refusal
from stowage.memory.budget import ledger
from stowage.memory.device import DeviceMemory
from stowage.memory.ledger import Ledger
from stowage.memory.release.engine_version import EngineVersion, engine_version
from stowage.memory.shape import SpeculativeSettings
from tests.memory.support import A100, B200, GIB, H100, L4, ledger_of, shape, version
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
        pytest.param("mistralai--Mixtral-8x7B-v0.1", 1, 131_072, id="Mixtral 8x7B"),
        pytest.param("google--gemma-3-27b-it-text", 1, 81_920, id="Gemma-3-27B, where only full layers grow"),
        pytest.param("openai--gpt-oss-120b", 1, 36_864, id="gpt-oss-120b, where only full layers grow"),
        pytest.param("deepseek-ai--DeepSeek-R1", 8, 70_272, id="R1 on any rank of eight"),
        pytest.param("deepseek-ai--DeepSeek-R1", 16, 70_272, id="R1 on any rank of sixteen"),
    ],
)
def test_bytes_per_token_and_rank(folder: str, tp: int, bytes_per_token: int) -> None:
    entry = ledger_of(published(folder), A100, tensor_parallel_size=tp, kv_cache_memory_bytes=20 * GIB)
    assert entry.kv_bytes_per_token == bytes_per_token


@pytest.mark.parametrize(
    ("folder", "bytes_per_block"),
    [
        pytest.param("google--gemma-3-27b-it-text", 1_310_720, id="Gemma-3-27B: ten layers"),
        pytest.param("openai--gpt-oss-120b", 589_824, id="gpt-oss-120b: eighteen layers"),
    ],
)
def test_bytes_of_a_block_of_windowed_models(folder: str, bytes_per_block: int) -> None:
    entry = ledger_of(published(folder), H100, kv_cache_memory_bytes=1000 * bytes_per_block)
    assert entry.num_gpu_blocks == 1000
    less = ledger_of(published(folder), H100, kv_cache_memory_bytes=1000 * bytes_per_block - 1)
    assert less.num_gpu_blocks == 999


@pytest.mark.parametrize(
    ("folder", "kv_gib", "changes", "tokens"),
    [
        pytest.param(
            "meta-llama--Llama-3.1-8B-Instruct", 4.12, {"max_model_len": 32768}, 33_744, id="8B on an A10G"
        ),
        pytest.param(
            "meta-llama--Meta-Llama-3.1-70B", 38.02, {"tensor_parallel_size": 4}, 498_320, id="70B tp4"
        ),
        pytest.param("Qwen--Qwen3-30B-A3B", 13.22, {"max_model_len": 40960}, 144_384, id="Qwen3-30B-A3B"),
        pytest.param(
            "deepseek-ai--DeepSeek-R1",
            43.75,
            {"tensor_parallel_size": 8, "max_model_len": 163840},
            668_480,
            id="R1 tp8",
        ),
        pytest.param(
            "deepseek-ai--DeepSeek-R1",
            40,
            {"tensor_parallel_size": 8, "max_model_len": 163840, "decode_context_parallel_size": 8},
            4_889_088,
            id="R1 tp8 with its tokens shared by eight ranks",
        ),
        pytest.param(
            "openai--gpt-oss-120b",
            7.92,
            {"max_model_len": 131072, "max_num_batched_tokens": 2048},
            223_443,
            id="gpt-oss-120b with short batches",
        ),
        pytest.param(
            "google--gemma-3-27b-it-text",
            16,
            {"max_model_len": 131072, "max_num_batched_tokens": 2048},
            169_792,
            id="Gemma-3-27B with short batches",
        ),
    ],
)
def test_tokens_of_worked_examples(folder: str, kv_gib: float, changes: dict[str, Any], tokens: int) -> None:
    """Worked by vLLM's own code; bytes are rounded to 0.01 GiB, hence the tolerance."""
    entry = ledger_of(
        published(folder), A100, **_with_context(changes), kv_cache_memory_bytes=int(kv_gib * GIB)
    )
    assert entry.kv_tokens == pytest.approx(tokens, rel=0.002)


def _with_context(changes: dict[str, Any]) -> dict[str, Any]:
    return {"max_model_len": 131072, **changes}


SPARK = DeviceMemory("NVIDIA-GB10", int(119.7 * GIB), (12, 1))
RTX_3090 = DeviceMemory("NVIDIA-GeForce-RTX-3090", int(23.58 * GIB), (8, 6))


@pytest.mark.parametrize(
    ("release", "engine", "folder", "device", "kv_gib", "changes", "tokens", "concurrency"),
    [
        pytest.param(
            "0.17.1", None, "meta-llama--Llama-3.1-8B-Instruct", A100, 55.79, {"max_model_len": 32768},
            457_024, 13.95, id="Llama-3.1-8B, 0.17.1",
        ),
        pytest.param(
            "0.18.1", None, "Qwen--Qwen2.5-32B-Instruct", A100, 5.24,
            {"tensor_parallel_size": 4, "max_model_len": 32768}, 85_760, 2.62, id="Qwen2.5-32B tp4, 0.18.1",
        ),
        pytest.param(
            "0.10.1.1", None, "openai--gpt-oss-120b", A100, 45.32,
            {"tensor_parallel_size": 4, "max_model_len": 16384}, 2_640_144, 284.25, id="gpt-oss-120b tp4, 0.10.1",
        ),
        pytest.param(
            "0.20.0", None, "google--gemma-4-26B-A4B-it-text", SPARK, 40.61,
            {"max_model_len": 8192, "max_num_batched_tokens": 4096}, 177_440, 35.75, id="Gemma 4, 0.20.0",
        ),
        pytest.param(
            "0.25.1", None, "google--gemma-4-26B-A4B-it-text", SPARK, 83.89,
            {"max_model_len": 262144, "max_num_batched_tokens": 2496}, 3_875_400, 14.78,
            id="Gemma 4, 0.25.1, batches of one image",
        ),
        pytest.param(
            "0.19.0", None, "Qwen--Qwen3.5-27B", RTX_3090, 7.0,
            {"tensor_parallel_size": 4, "max_model_len": 32768}, 114_464, 12.98, id="Qwen3.5-27B tp4, 0.19.0",
        ),
        pytest.param(
            "0.19.0", None, "Qwen--Qwen3.5-27B", RTX_3090, 7.56,
            {"tensor_parallel_size": 4, "max_model_len": 50000}, 123_088, 9.42,
            id="Qwen3.5-27B tp4 with a longer context",
        ),
        pytest.param(
            "0.19.2", None, "nvidia--NVIDIA-Nemotron-3-Nano-4B-BF16", SPARK, 103.39,
            {"max_model_len": 49152, "kv_cache_dtype": "fp8_e4m3"}, 1_934_432, 216.94, id="Nemotron 3 Nano, 8 bits",
        ),
        pytest.param(
            "0.9.0.1", "V0", "openai--whisper-large-v3-turbo", A100, 159.33, {"max_model_len": 448},
            1_044_208, 2330.82, id="Whisper on V0",
        ),
        pytest.param(
            "0.7.3", None, "meta-llama--Llama-3.1-8B-Instruct", A100, 2.39, {"max_model_len": 1024},
            19_584, 19.12, id="Llama-3.1-8B on V0",
        ),
        pytest.param(
            "0.8.0", "V0", "google--gemma-3-27b-it-text", A100, 18.03,
            {"tensor_parallel_size": 4, "max_model_len": 65536}, 152_416, 2.33, id="Gemma 3 on V0 ignores windows",
        ),
    ],
)  # fmt: skip
def test_tokens_of_logged_starts(
    release: str,
    engine: str | None,
    folder: str,
    device: DeviceMemory,
    kv_gib: float,
    changes: dict[str, Any],
    tokens: int,
    concurrency: float,
) -> None:
    """Public logs print bytes to 0.01 GiB: the printed tokens lie between those of both ends."""
    found = engine_version(release, engine)
    assert isinstance(found, EngineVersion)
    ends = [
        ledger(
            published(folder),
            shape(**changes, kv_cache_memory_bytes=int((kv_gib + off) * GIB)),
            device,
            found,
        )
        for off in (-0.005, 0.005)
    ]
    low, high = (entry for entry in ends if isinstance(entry, Ledger))
    assert low.kv_tokens <= tokens <= high.kv_tokens
    assert low.max_concurrency - 0.005 <= concurrency <= high.max_concurrency + 0.005


def test_tokens_of_a_logged_start_to_the_block() -> None:
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
    ("dtype", "device", "bytes_per_vector"),
    [
        pytest.param("auto", A100, 64, id="auto is the model's dtype"),
        pytest.param("bfloat16", A100, 64, id="bfloat16"),
        pytest.param("float16", A100, 64, id="float16"),
        pytest.param("fp8", A100, 32, id="fp8 halves it"),
        pytest.param("fp8_e5m2", A100, 32, id="fp8 with five exponent bits"),
        pytest.param("int8_per_token_head", A100, 36, id="int8 with a scale for each token and head"),
        pytest.param("int4_per_token_head", A100, 20, id="int4 with a scale for each token and head"),
    ],
)
def test_kv_dtypes(dtype: str, device: DeviceMemory, bytes_per_vector: int) -> None:
    """The tiny model has four layers of four heads of 32."""
    entry = ledger_of(profile_of(TINY), device, kv_cache_dtype=dtype)
    assert entry.kv_bytes_per_token == 4 * 4 * 2 * bytes_per_vector


def test_a_checkpoint_may_say_what_auto_is() -> None:
    profile = replace(profile_of(TINY), kv_cache_dtype="fp8")
    assert ledger_of(profile, A100).kv_bytes_per_token == 4 * 4 * 2 * 32
    assert ledger_of(profile, H100, kv_cache_dtype="bfloat16").kv_bytes_per_token == 4 * 4 * 2 * 64


def test_four_bits_with_a_scale_for_sixteen_elements() -> None:
    profile = published("meta-llama--Llama-3.1-8B-Instruct")
    assert ledger_of(profile, B200, kv_cache_dtype="nvfp4").kv_bytes_per_token == 32 * 8 * 2 * (64 + 8)


@pytest.mark.parametrize(
    ("changes", "bytes_per_token"),
    [
        pytest.param({"kv_cache_dtype": "fp8"}, 61 * (656 + 132), id="8 bits in the packed layout"),
        pytest.param({}, 61 * (576 * 2 + 132), id="16 bits beside 8-bit index keys"),
    ],
)
def test_sparse_latent_attention(changes: dict[str, Any], bytes_per_token: int) -> None:
    profile = published("deepseek-ai--DeepSeek-V3.2")
    layers = len(profile.layers)
    entry = ledger_of(profile, H100, tensor_parallel_size=8, kv_cache_memory_bytes=20 * GIB, **changes)
    assert entry.kv_bytes_per_token == bytes_per_token // 61 * layers
    assert entry.block_size == 64


def test_the_first_release_with_sparse_attention_keeps_it_in_8_bits_by_default() -> None:
    profile, pinned = published("deepseek-ai--DeepSeek-V3.2"), 20 * GIB
    first, next_one = (
        ledger_of(profile, H100, release, tensor_parallel_size=8, kv_cache_memory_bytes=pinned)
        for release in ("0.11.0", "0.11.1")
    )
    assert first.kv_bytes_per_token < next_one.kv_bytes_per_token


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


def test_guessing_by_lookup_leaves_one_batch_in_flight() -> None:
    entry = ledger_of(
        published("teknium--OpenHermes-2.5-Mistral-7B"),
        H100,
        max_model_len=32768,
        speculative=SpeculativeSettings("ngram", 3),
    )
    assert entry.num_gpu_blocks / entry.max_concurrency == pytest.approx((4095 + 2048 + 15) // 16 + 1)


def test_a_window_longer_than_the_context_costs_one_block_more() -> None:
    windowed = ledger_of(published("microsoft--Phi-3-mini-128k-instruct"), H100, max_model_len=4096)
    assert windowed.num_gpu_blocks / windowed.max_concurrency == pytest.approx(4096 / 16 + 1)


def test_the_null_block_counts_from_0_29_on() -> None:
    profile = profile_of(TINY)
    page = 16 * 2 * 4 * 32 * 2 * 4
    exact: dict[str, Any] = {"max_model_len": 2048, "kv_cache_memory_bytes": 128 * page}
    assert ledger_of(profile, A100, "0.28.0", **exact).verdict == "Fits"
    entry = ledger_of(profile, A100, "0.29.0", **exact)
    assert entry.verdict == "DoesNotFit"
    assert entry.largest_max_model_len == 127 * 16


@pytest.mark.parametrize(
    ("folder", "changes", "layers"),
    [
        pytest.param("deepseek-ai--DeepSeek-R1", {"method": "mtp", "num_speculative_tokens": 1}, 1, id="one layer"),
        pytest.param("deepseek-ai--DeepSeek-R1", {"method": "ngram", "num_speculative_tokens": 3}, 0, id="no model"),
        pytest.param("deepseek-ai--DeepSeek-R1", {"method": "mtp", "num_speculative_tokens": 0}, 0, id="nothing"),
    ],
)  # fmt: skip
def test_draft_layers_keep_a_cache_of_their_own(folder: str, changes: dict[str, Any], layers: int) -> None:
    asked: dict[str, Any] = {"tensor_parallel_size": 8, "kv_cache_memory_bytes": 20 * GIB}
    profile = published(folder)
    alone = ledger_of(profile, H100, **asked)
    guessing = ledger_of(profile, H100, **asked, speculative=SpeculativeSettings(**changes))
    assert guessing.kv_bytes_per_token - alone.kv_bytes_per_token == layers * 576 * 2


@pytest.mark.parametrize(
    ("release", "device", "folder", "changes", "words"),
    [
        pytest.param(
            "0.32.0", H100, "meta-llama--Llama-3.1-8B-Instruct", {"kv_cache_dtype": "turboquant_k8v4"},
            "not sized", id="a format that is not sized",
        ),
        pytest.param(
            "0.19.0", B200, "meta-llama--Llama-3.1-8B-Instruct", {"kv_cache_dtype": "nvfp4"},
            "not sized for vLLM 0.19.0", id="a format that came later",
        ),
        pytest.param(
            "0.31.0", A100, "meta-llama--Llama-3.1-8B-Instruct", {"kv_cache_dtype": "nvfp4"},
            "kv_cache_dtype nvfp4", id="four bits before they ran beyond Blackwell",
        ),
        pytest.param(
            "0.17.1", A100, "deepseek-ai--DeepSeek-R1", {"kv_cache_dtype": "fp8", "tensor_parallel_size": 8},
            "latent attention", id="8-bit latents on Ampere before 0.18",
        ),
        pytest.param(
            "0.32.0", A100, "deepseek-ai--DeepSeek-V3.2", {"tensor_parallel_size": 8},
            "sparse latent attention", id="sparse attention on Ampere",
        ),
        pytest.param(
            "0.32.0", A100, "deepseek-ai--DeepSeek-R1", {"kv_cache_dtype": "nvfp4", "tensor_parallel_size": 8},
            "nvfp4", id="four bits for latent attention",
        ),
        pytest.param(
            "0.32.0", H100, "deepseek-ai--DeepSeek-R1", {"block_size": 24, "tensor_parallel_size": 8},
            "blocks of 24", id="a block size that no kernel takes",
        ),
        pytest.param(
            "0.11.0", A100, "google--gemma-4-26B-A4B-it-text", {}, "pages", id="pages that differ before 0.12",
        ),
    ],
)  # fmt: skip
def test_caches_that_no_engine_would_start_with(
    release: str, device: DeviceMemory, folder: str, changes: dict[str, Any], words: str
) -> None:
    answer = ledger(published(folder), shape(**changes), device, version(release))
    assert isinstance(answer, Refusal)
    assert words in answer.sentence


def test_a_refused_format_names_those_that_work() -> None:
    asked = shape(kv_cache_dtype="nvfp4")
    answer = ledger(published("meta-llama--Llama-3.1-8B-Instruct"), asked, L4, version("0.31.0"))
    assert isinstance(answer, Refusal)
    assert "fp8" in answer.hint
    assert "nvfp4" not in answer.hint
