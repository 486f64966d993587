"""The transient peak: layer term and sampler term, against logged and worked figures."""

from __future__ import annotations

import pytest

from stowage.memory.activations import activation_bytes
from stowage.memory.layout import RankLayout
from stowage.memory.setting import Setting
from tests.memory.support import A100, GIB, H100, L4, ledger_of, shape, version
from tests.model.support import published

LLAMA_8B = "meta-llama--Llama-3.1-8B-Instruct"
LLAMA_70B = "meta-llama--Meta-Llama-3.1-70B"


@pytest.mark.parametrize(
    ("tokens", "gib"),
    [
        pytest.param(20_000, 2.07, id="20,000 tokens, vllm#10517"),
        pytest.param(29_000, 2.99, id="29,000 tokens, vllm#10517"),
    ],
)
def test_the_layer_term_is_the_logged_one(tokens: int, gib: float) -> None:
    setting = Setting(published(LLAMA_8B), shape(max_num_batched_tokens=tokens), L4, version())
    peak = activation_bytes(setting, RankLayout(1, 1, 0))
    assert peak.value / GIB == pytest.approx(gib, abs=0.02)
    assert peak.low < peak.value < peak.high


@pytest.mark.parametrize(
    ("folder", "release", "tp", "seqs", "gib"),
    [
        pytest.param(LLAMA_8B, "0.32.0", 1, 256, 0.21, id="8B on a small card: the layer"),
        pytest.param(LLAMA_70B, "0.32.0", 4, 256, 0.28, id="70B tp4: the sampler with gathered logits"),
        pytest.param(LLAMA_8B, "0.11.0", 1, 1024, 4.67, id="8B with 1024 requests and the sorting sampler"),
        pytest.param("Qwen--Qwen3-0.6B", "0.11.0", 1, 1024, 5.51, id="a tiny model with a large vocabulary"),
    ],
)
def test_peaks_of_whole_servers(folder: str, release: str, tp: int, seqs: int, gib: float) -> None:
    asked = shape(tensor_parallel_size=tp, max_num_seqs=seqs, max_num_batched_tokens=2048)
    peak = activation_bytes(Setting(published(folder), asked, A100, version(release)), RankLayout(tp, 1, 0))
    assert peak.value / GIB == pytest.approx(gib, abs=0.01)


def test_only_the_last_stage_samples() -> None:
    setting = Setting(
        published(LLAMA_8B), shape(pipeline_parallel_size=2, max_num_seqs=1024), H100, version("0.11.0")
    )
    first, last = (activation_bytes(setting, RankLayout(1, 2, stage)) for stage in (0, 1))
    assert first.value < last.value / 10


def test_old_profiles_count_what_torch_keeps_cached() -> None:
    """Up to 0.6.3 the device's loss counts: blocks of the layers, and beside them those of the sampler."""
    profile, limits = published("meta-llama--Llama-3.1-8B-Instruct"), {"max_num_batched_tokens": 8192}
    later, before = (
        ledger_of(profile, A100, release, **limits).activation_bytes for release in ("0.6.4", "0.6.3")
    )
    layers = 8192 * (3 * 4096 + 3 * 14336) * 2
    sampler = (38 * 256 * 128256) + 8192 * 4096 * 2
    assert later == max(layers, sampler)
    assert before == layers + sampler


@pytest.mark.parametrize(
    ("folder", "width"),
    [
        pytest.param("mistralai--Mixtral-8x7B-v0.1", 2 * (14336 + 28672), id="experts wider than the model"),
        pytest.param("Qwen--Qwen3-30B-A3B", 8 * (2048 + 2048), id="experts narrower than the model"),
    ],
)
def test_experts_have_workspaces_for_every_token_and_choice(folder: str, width: int) -> None:
    profile = published(folder)
    setting = Setting(profile, shape(max_num_batched_tokens=16384, max_num_seqs=1), H100, version())
    expected = 2 * 16384 * (3 * profile.hidden_size + profile.hidden_size + width)
    assert activation_bytes(setting, RankLayout(1, 1, 0)).value == expected
