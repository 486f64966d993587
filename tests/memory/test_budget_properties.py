"""What must hold for every ledger: the budget equation, at least one request, and monotonicity."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stowage.api.refusal import Refusal
from stowage.memory.budget import ledger, rank_ledgers
from stowage.memory.device import DeviceMemory
from stowage.memory.ledger import Ledger
from stowage.memory.shape import EngineShape
from stowage.model.profile import ModelProfile
from tests.memory.support import GIB, shape, version
from tests.model.support import TINY, profile_of

RELEASES = ("0.8.5", "0.9.2", "0.10.2", "0.11.0", "0.17.1", "0.19.1", "0.20.0", "0.26.0", "0.28.0", "0.32.0")


@st.composite
def profiles(draw: st.DrawFn) -> ModelProfile:
    kv_heads = draw(st.sampled_from([1, 2, 4, 8]))
    heads = kv_heads * draw(st.sampled_from([1, 2, 4]))
    head_dim = draw(st.sampled_from([32, 64, 128]))
    changes: dict[str, Any] = {
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "hidden_size": heads * head_dim * draw(st.sampled_from([1, 2])),
        "intermediate_size": draw(st.sampled_from([1024, 8192, 14336])),
        "num_hidden_layers": draw(st.integers(1, 48)),
        "vocab_size": draw(st.integers(1000, 160_000)),
        "max_position_embeddings": 32768,
        "sliding_window": draw(st.sampled_from([None, None, 512, 4096])),
        "tie_word_embeddings": draw(st.booleans()),
    }
    return profile_of(TINY, **changes)


shapes = st.builds(
    shape,
    tensor_parallel_size=st.sampled_from([1, 1, 2, 4, 8]),
    pipeline_parallel_size=st.sampled_from([1, 1, 2, 3]),
    kv_cache_dtype=st.sampled_from(["auto", "fp8"]),
    gpu_memory_utilization=st.floats(0.3, 0.98),
    max_model_len=st.integers(1, 32768),
    max_num_seqs=st.integers(1, 1024),
    max_num_batched_tokens=st.sampled_from([1024, 2048, 8192]),
    enforce_eager=st.booleans(),
    kv_cache_memory_bytes=st.one_of(st.none(), st.integers(1, 40 * GIB)),
)
totals = st.integers(4 * GIB, 180 * GIB)


def device(total_bytes: int) -> DeviceMemory:
    return DeviceMemory("NVIDIA-Any", total_bytes, (9, 0))


def made(profile: ModelProfile, asked: EngineShape, total_bytes: int, release: str) -> Ledger | None:
    answer = ledger(profile, asked, device(total_bytes), version(release))
    return None if isinstance(answer, Refusal) else answer


@given(profiles(), shapes, totals, st.sampled_from(RELEASES))
@settings(max_examples=150, deadline=None)
def test_every_rank_keeps_the_budget_equation_of_its_release(
    profile: ModelProfile, asked: EngineShape, total_bytes: int, release: str
) -> None:
    answer = rank_ledgers(profile, asked, device(total_bytes), version(release))
    for entry in () if isinstance(answer, Refusal) else answer:
        if asked.kv_cache_memory_bytes is not None:
            assert entry.kv_cache_bytes == asked.kv_cache_memory_bytes
            continue
        spent = entry.weights_allocated_bytes + entry.persistent_bytes + entry.non_torch_bytes
        spent += entry.activation_bytes + entry.kv_cache_bytes
        spent += entry.cuda_graph_bytes if entry.cuda_graphs_counted else 0
        spent += entry.in_use_before_bytes if entry.in_use_before_counted else 0
        assert spent == entry.budget_bytes
        assert entry.kv_cache_band.low <= entry.kv_cache_bytes <= entry.kv_cache_band.high


@given(profiles(), shapes, totals, st.sampled_from(RELEASES))
@settings(max_examples=150, deadline=None)
def test_what_fits_is_within_the_device(
    profile: ModelProfile, asked: EngineShape, total_bytes: int, release: str
) -> None:
    entry = made(profile, asked, total_bytes, release)
    if entry is None or entry.verdict != "Fits":
        return
    uncounted = 0 if entry.cuda_graphs_counted else entry.cuda_graph_bytes
    before = 0 if entry.in_use_before_counted else entry.in_use_before_bytes
    if not entry.in_use_before_counted:
        assert entry.in_use_before_bytes + entry.budget_bytes <= entry.total_bytes
    if entry.kv_cache_pinned:
        assert entry.used_bytes <= entry.total_bytes
    else:
        assert before + entry.budget_bytes + uncounted <= entry.total_bytes


@given(profiles(), shapes, totals, st.sampled_from(RELEASES))
@settings(max_examples=150, deadline=None)
def test_what_fits_serves_at_least_one_request(
    profile: ModelProfile, asked: EngineShape, total_bytes: int, release: str
) -> None:
    entry = made(profile, asked, total_bytes, release)
    if entry is None:
        return
    if entry.verdict == "Fits":
        assert entry.max_concurrency >= 1
        assert entry.largest_max_model_len is not None
        assert entry.largest_max_model_len >= asked.max_model_len
    assert (entry.refusal is not None) is (entry.verdict == "DoesNotFit")
    assert (entry.caution is not None) is (entry.verdict == "Tight")


@given(profiles(), shapes, totals, st.sampled_from(RELEASES))
@settings(max_examples=120, deadline=None)
def test_the_largest_context_is_the_last_that_has_room(
    profile: ModelProfile, asked: EngineShape, total_bytes: int, release: str
) -> None:
    entry = made(profile, replace(asked, pipeline_parallel_size=1), total_bytes, release)
    if entry is None or entry.largest_max_model_len is None:
        return
    for length, enough in ((entry.largest_max_model_len, True), (entry.largest_max_model_len + 1, False)):
        if length > profile.max_model_len:
            continue
        other = made(
            profile, replace(asked, pipeline_parallel_size=1, max_model_len=length), total_bytes, release
        )
        assert other is not None
        assert (other.kv_cache_bytes >= other.kv_needed_bytes) is enough


@given(profiles(), shapes, totals, st.integers(0, 40 * GIB), st.sampled_from(RELEASES))
@settings(max_examples=120, deadline=None)
def test_more_memory_never_makes_a_fitting_model_not_fit(
    profile: ModelProfile, asked: EngineShape, total_bytes: int, more: int, release: str
) -> None:
    smaller = made(profile, asked, total_bytes, release)
    larger = made(profile, asked, total_bytes + more, release)
    if smaller is None or larger is None:
        assert smaller is larger
        return
    order = ("DoesNotFit", "Tight", "Fits")
    assert order.index(larger.verdict) >= order.index(smaller.verdict)
    assert larger.kv_tokens >= smaller.kv_tokens


@given(profiles(), shapes, totals, st.integers(1, 16384), st.sampled_from(RELEASES))
@settings(max_examples=120, deadline=None)
def test_a_longer_context_never_yields_more_concurrency(
    profile: ModelProfile, asked: EngineShape, total_bytes: int, more: int, release: str
) -> None:
    longer = replace(asked, max_model_len=min(32768, asked.max_model_len + more))
    first, second = made(profile, asked, total_bytes, release), made(profile, longer, total_bytes, release)
    if first is None or second is None:
        assert first is second
        return
    assert second.max_concurrency <= first.max_concurrency


@given(profiles(), shapes, totals, st.sampled_from(RELEASES))
@settings(max_examples=120, deadline=None)
def test_lower_kv_precision_never_yields_fewer_tokens(
    profile: ModelProfile, asked: EngineShape, total_bytes: int, release: str
) -> None:
    whole = made(profile, replace(asked, kv_cache_dtype="auto"), total_bytes, release)
    half = made(profile, replace(asked, kv_cache_dtype="fp8"), total_bytes, release)
    if whole is None or half is None:
        assert whole is half
        return
    assert half.kv_tokens >= whole.kv_tokens
    if asked.pipeline_parallel_size == 1:
        assert half.kv_bytes_per_token * 2 == whole.kv_bytes_per_token
