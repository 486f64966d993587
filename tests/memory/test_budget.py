"""The ledger of whole servers: worked examples, verdicts, refusals and the equation of each release."""

from __future__ import annotations

from typing import Any

import pytest

from stowage.api.refusal import Refusal
from stowage.memory.budget import largest_max_num_seqs, rank_ledgers
from stowage.memory.device import DeviceMemory
from stowage.memory.ledger import Ledger
from tests.memory.support import A10G, A100, GIB, H100, L4, NODE, T4, gpu, ledger_of, shape, version
from tests.model.support import TINY, profile_of, published

LLAMA_8B = "meta-llama--Llama-3.1-8B-Instruct"
LLAMA_70B = "meta-llama--Meta-Llama-3.1-70B"
QWEN_32B = "Qwen--Qwen3-32B"


@pytest.mark.parametrize(
    ("folder", "device", "tp", "weights", "persistent", "activation", "kv", "tokens"),
    [
        pytest.param(LLAMA_8B, A10G, 1, 14.99, 0.13, 0.21, 4.12, 33_700, id="8B on an A10G"),
        pytest.param(LLAMA_8B, L4, 1, 14.99, 0.13, 0.21, 4.11, 33_600, id="8B on an L4"),
        pytest.param(LLAMA_70B, A100, 4, 32.89, 0.13, 0.28, 38.0, 498_320, id="70B on four A100"),
    ],
)
def test_worked_examples(
    folder: str,
    device: DeviceMemory,
    tp: int,
    weights: float,
    persistent: float,
    activation: float,
    kv: float,
    tokens: int,
) -> None:
    entry = ledger_of(published(folder), device, tensor_parallel_size=tp, max_model_len=131072)
    assert entry.weights_allocated_bytes / GIB == pytest.approx(weights, abs=0.006)
    assert entry.persistent_bytes / GIB == pytest.approx(persistent, abs=0.01)
    assert entry.activation_bytes / GIB == pytest.approx(activation, abs=0.006)
    assert entry.kv_cache_bytes / GIB == pytest.approx(kv, rel=0.04)
    assert entry.kv_tokens == pytest.approx(tokens, rel=0.04)


@pytest.mark.parametrize(
    ("release", "device", "folder", "changes", "kv"),
    [
        pytest.param("0.17.1", A100, LLAMA_8B, {"max_model_len": 32768}, 55.79, id="8B, 0.17.1, A100"),
        pytest.param(
            "0.11.0", H100, LLAMA_8B, {"max_model_len": 16000, "max_num_seqs": 1024, "max_num_batched_tokens": 8192},
            51.38, id="8B on an H100 with 1024 requests",
        ),
        pytest.param(
            "0.11.0", H100, QWEN_32B,
            {"max_model_len": 16000, "max_num_seqs": 1024, "max_num_batched_tokens": 8192, "tensor_parallel_size": 2},
            34.49, id="32B on two H100",
        ),
        pytest.param(
            "0.10.0", H100, QWEN_32B,
            {"max_model_len": 32768, "max_num_seqs": 1024, "max_num_batched_tokens": 8192, "tensor_parallel_size": 8,
             "kv_cache_dtype": "fp8"},
            55.62, id="32B on eight H100 with an fp8 cache",
        ),
    ],
)  # fmt: skip
def test_logged_starts(
    release: str, device: DeviceMemory, folder: str, changes: dict[str, Any], kv: float
) -> None:
    entry = ledger_of(published(folder), device, release, gpu_memory_utilization=0.9, **changes)
    assert entry.kv_cache_bytes / GIB == pytest.approx(kv, rel=0.03)
    assert entry.kv_cache_band.low / GIB <= kv <= entry.kv_cache_band.high / GIB
    assert entry.verdict == "Fits"


def test_a_context_that_does_not_fit_is_refused_with_the_one_that_does() -> None:
    entry = ledger_of(published(LLAMA_8B), L4, max_model_len=131072)
    assert entry.verdict == "DoesNotFit"
    assert entry.refusal is not None
    assert entry.refusal.reason.value == "ContextTooLong"
    assert entry.largest_max_model_len is not None
    assert str(entry.largest_max_model_len) in entry.refusal.hint
    assert ledger_of(published(LLAMA_8B), L4, max_model_len=entry.safe_max_model_len).verdict == "Fits"
    assert ledger_of(published(LLAMA_8B), L4, max_model_len=entry.largest_max_model_len).verdict == "Tight"


def test_a_logged_refusal_is_one_here_too() -> None:
    """Qwen3-32B on one H100 with 0.11 and a context of 32,000 ended with too little KV cache.

    PyTorch sampled there. With FlashInfer in the image 0.11.0 would have started, and so it is not refused.
    """
    changes = {"max_num_seqs": 1024, "max_num_batched_tokens": 8192, "gpu_memory_utilization": 0.9}
    verdicts = {
        (release, length): ledger_of(
            published(QWEN_32B), H100, release, max_model_len=length, **changes
        ).verdict
        for release in ("0.11.0", "0.11.1")
        for length in (16000, 32000)
    }
    assert verdicts == {
        ("0.11.0", 16000): "Fits",
        ("0.11.0", 32000): "Tight",
        ("0.11.1", 16000): "Fits",
        ("0.11.1", 32000): "DoesNotFit",
    }


def test_weights_beyond_the_device_leave_nothing() -> None:
    entry = ledger_of(published(LLAMA_70B), L4, tensor_parallel_size=4)
    assert entry.kv_cache_bytes < 0
    assert (entry.num_gpu_blocks, entry.kv_tokens, entry.max_concurrency) == (0, 0, 0)
    assert entry.largest_max_model_len is None
    assert entry.refusal is not None
    assert entry.refusal.reason.value == "InsufficientMemory"
    assert "are missing" in entry.refusal.message


@pytest.mark.parametrize(
    ("utilization", "verdict", "reason"),
    [
        pytest.param(0.92, "Fits", None, id="the default leaves room for the context"),
        pytest.param(0.975, "Tight", None, id="just at the estimate it is tight"),
        pytest.param(1.0, "DoesNotFit", "FreeMemoryBelowUtilization", id="the whole device is never free"),
    ],
)
def test_the_gate_at_start(utilization: float, verdict: str, reason: str | None) -> None:
    for pinned in (None, GIB):
        entry = ledger_of(
            profile_of(TINY), L4, gpu_memory_utilization=utilization, kv_cache_memory_bytes=pinned
        )
        assert entry.verdict == verdict
        assert (entry.refusal.reason.value if entry.refusal else None) == reason
        assert (entry.caution is None) is (verdict != "Tight")


def test_graphs_that_a_release_does_not_count_need_room_beside_the_budget() -> None:
    profile = published(LLAMA_8B)
    graphs = {"gpu_memory_utilization": 0.97}
    entry = ledger_of(profile, L4, "0.15.0", **graphs)
    assert entry.verdict == "DoesNotFit"
    assert entry.refusal is not None
    assert "outside its budget" in entry.refusal.message
    assert ledger_of(profile, L4, "0.15.0", **graphs, enforce_eager=True).verdict == "Fits"
    assert ledger_of(profile, L4, "0.32.0", **graphs).verdict == "Fits"


@pytest.mark.parametrize(
    ("pinned_gib", "verdict"),
    [
        pytest.param(4.0, "Fits", id="four GiB fit"),
        pytest.param(5.3, "Tight", id="what the estimate leaves is tight"),
        pytest.param(7.0, "DoesNotFit", id="seven do not"),
    ],
)
def test_a_pinned_cache_must_fit_beside_everything(pinned_gib: float, verdict: str) -> None:
    entry = ledger_of(published(LLAMA_8B), L4, kv_cache_memory_bytes=int(pinned_gib * GIB))
    assert entry.verdict == verdict
    assert entry.kv_cache_bytes == entry.kv_cache_band.low == entry.kv_cache_band.high
    if entry.refusal is not None:
        assert "kv_cache_memory_bytes" in entry.refusal.hint


def test_ranks_of_a_pipeline_share_the_smallest_block_count() -> None:
    ledgers = rank_ledgers(
        published(LLAMA_70B), shape(tensor_parallel_size=2, pipeline_parallel_size=3), A100, version()
    )
    assert not isinstance(ledgers, Refusal)
    assert [entry.rank for entry in ledgers] == [f"stage {stage} of tp2 pp3" for stage in range(3)]
    own = [entry.kv_cache_bytes // (entry.kv_bytes_per_token * 16) for entry in ledgers]
    assert {entry.num_gpu_blocks for entry in ledgers} == {min(own)}
    assert len(set(own)) > 1


def test_the_largest_number_of_requests_is_the_last_that_fits() -> None:
    profile, asked = published(LLAMA_8B), shape(max_model_len=26000, max_num_batched_tokens=2048)
    found = largest_max_num_seqs(profile, asked, L4, version())
    assert found is not None
    assert ledger_of(profile, L4, max_model_len=26000, max_num_seqs=found).verdict == "Fits"
    assert ledger_of(profile, L4, max_model_len=26000, max_num_seqs=found + 1).verdict != "Fits"
    assert largest_max_num_seqs(published(LLAMA_70B), asked, L4, version()) is None


def test_float16_replaces_bfloat16_on_older_cards() -> None:
    """Same bytes, but the ledger must not refuse: the engine falls back by itself."""
    entry = ledger_of(profile_of(TINY), T4)
    assert entry.weights_bytes == ledger_of(profile_of(TINY), L4).weights_bytes


def test_float32_doubles_weights_and_cache() -> None:
    half, whole = (ledger_of(profile_of(TINY), L4, dtype=dtype) for dtype in ("auto", "float32"))
    assert whole.kv_bytes_per_token == 2 * half.kv_bytes_per_token
    assert whole.weights_bytes > 1.9 * half.weights_bytes


def test_a_cpu_node_has_exactly_the_pinned_cache() -> None:
    profile = profile_of(TINY)
    entry = ledger_of(profile, NODE, kv_cache_memory_bytes=GIB, max_model_len=1024, max_num_seqs=4)
    assert entry.block_size == 128
    assert entry.num_gpu_blocks == GIB // (128 * 2 * 4 * 32 * 2 * 4)
    assert entry.kv_tokens == 524_288
    assert entry.max_concurrency == 512.0
    assert entry.cuda_graph_bytes == entry.in_use_before_bytes == 0
    assert entry.host_memory_bytes > GIB + entry.weights_allocated_bytes
    assert entry.verdict == "Fits"


def test_a_cpu_node_that_is_too_small_is_refused() -> None:
    entry = ledger_of(profile_of(TINY), NODE, kv_cache_memory_bytes=14 * GIB)
    assert entry.verdict == "DoesNotFit"
    assert entry.refusal is not None
    assert entry.refusal.reason.value == "InsufficientMemory"


def test_sums_of_a_ledger() -> None:
    entry = ledger_of(published(LLAMA_8B), L4)
    assert isinstance(entry, Ledger)
    assert entry.used_bytes + entry.free_bytes == entry.total_bytes
    parts = entry.in_use_before_bytes + entry.non_torch_bytes + entry.persistent_bytes
    assert entry.overhead_bytes == parts + entry.activation_bytes + entry.cuda_graph_bytes


def test_a_gpu_that_shares_the_hosts_memory_loses_what_host_processes_take() -> None:
    own, shared = gpu(121.69, "NVIDIA-Own", (12, 0)), gpu(121.69, "NVIDIA-GB10", (12, 1))
    entries = [ledger_of(published(LLAMA_8B), device, max_model_len=2048) for device in (own, shared)]
    lost = (entries[1].non_torch_bytes - entries[0].non_torch_bytes) / GIB
    assert lost == pytest.approx(3.4, abs=0.1)
    assert entries[0].kv_cache_bytes - entries[1].kv_cache_bytes == pytest.approx(lost * GIB, abs=2)
