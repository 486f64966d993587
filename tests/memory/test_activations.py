"""The transient peak: layer term and sampler term, against logged and worked figures."""

from __future__ import annotations

import pytest

from stowage.memory.activations import activation_bytes
from stowage.memory.layout import RankLayout
from stowage.memory.setting import Setting
from tests.memory.support import A100, GIB, H100, L4, shape, version
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
