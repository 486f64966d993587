"""The transient peak: layer term and sampler term, against logged and worked figures."""

from __future__ import annotations

import pytest

from stowage.memory.activations import activation_bytes
from stowage.memory.device import DeviceMemory
from stowage.memory.layout import RankLayout
from stowage.memory.setting import Setting
from tests.memory.support import A100, GIB, H100, L4, MIB, ledger_of, shape, version
from tests.model.support import published

LLAMA_8B = "meta-llama--Llama-3.1-8B-Instruct"
LLAMA_70B = "meta-llama--Meta-Llama-3.1-70B"
MANY_EXPERTS = "Qwen--Qwen3-30B-A3B"
MIXTRAL = "mistralai--Mixtral-8x7B-v0.1"
LIBRARIES = 118 * MIB
"""What cuBLAS takes on Hopper, beside the sampler."""


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
        pytest.param(MIXTRAL, 2 * (14336 + 28672), id="experts wider than the model"),
        pytest.param("Qwen--Qwen3-30B-A3B", 8 * (2048 + 2048), id="experts narrower than the model"),
    ],
)
def test_experts_have_workspaces_for_every_token_and_choice(folder: str, width: int) -> None:
    profile, asked = published(folder), shape(max_num_batched_tokens=16384, max_num_seqs=1)
    setting = Setting(profile, asked, H100, version("0.13.0"))
    expected = 2 * 16384 * (3 * profile.hidden_size + profile.hidden_size + width)
    assert activation_bytes(setting, RankLayout(1, 1, 0)).value == expected


def test_workspaces_of_experts_stay_beside_attention_from_0_17_on() -> None:
    """Mixtral has 32 query and 8 key/value heads of 128; residual, hidden state and output come on top."""
    asked = shape(max_num_batched_tokens=16384, max_num_seqs=1)
    setting = Setting(published(MIXTRAL), asked, H100, version())
    attention = 3 * 4096 + (32 + 8) * 2 * 128
    expected = 2 * 16384 * (attention + 2 * (14336 + 28672))
    assert activation_bytes(setting, RankLayout(1, 1, 0)).value == expected


@pytest.mark.parametrize(
    ("tp", "held_heads"),
    [
        pytest.param(1, 2 * 64, id="as many heads as the kernel takes"),
        pytest.param(2, 32 + 2 * 64, id="queries are copied to as many heads as the kernel takes"),
    ],
)
def test_compressed_attention_pads_heads_and_pretends_no_context(tp: int, held_heads: int) -> None:
    """DeepSeek V4 Flash: 4 residual streams of 4096, heads of 512, 6 of its experts of 2048 a token."""
    asked = shape(tensor_parallel_size=tp, max_num_batched_tokens=8192, max_num_seqs=1, max_model_len=30000)
    setting = Setting(published("deepseek-ai--DeepSeek-V4-Flash"), asked, H100, version())
    peak = activation_bytes(setting, RankLayout(tp, 1, 0))
    streams = (4 + 2) * 4096 * 2
    queries_and_outputs = held_heads * 512 * 2
    compressors = 2 * 2 * (512 + 128) * 4
    index_queries = 64 * 128 * (2 + 1)
    experts = 6 * 2 * 2 * max(4096, 2 * 2048 // tp)
    per_token = streams + queries_and_outputs + compressors + index_queries + experts
    assert peak.value == 8192 * per_token + 512 * MIB
    assert (peak.low, peak.high) == (0.7 * peak.value, 1.6 * peak.value)


@pytest.mark.parametrize(
    ("release", "low", "value"),
    [
        pytest.param("0.8.5", 10, 38, id="FlashInfer samples where it is installed"),
        pytest.param("0.11.0", 10, 38, id="the last release that takes it unasked"),
        pytest.param("0.11.1", 34.7, 38, id="it has to be asked for"),
        pytest.param("0.17.0", 10, 14, id="kernels that sort nothing"),
    ],
)
def test_the_sampler_is_as_uncertain_as_the_installation(release: str, low: float, value: float) -> None:
    asked = shape(max_num_batched_tokens=1024, max_num_seqs=1024)
    peak = activation_bytes(Setting(published(LLAMA_8B), asked, A100, version(release)), RankLayout(1, 1, 0))
    output = 1024 * 4096 * 2
    assert peak.value == value * 1024 * 128256 + output
    assert peak.low == max(low * 1024 * 128256 + output, 0.95 * 2 * 1024 * (3 * 4096 + 3 * 14336))


@pytest.mark.parametrize(
    ("folder", "release", "device", "kept"),
    [
        pytest.param(MANY_EXPERTS, "0.14.0", A100, 0, id="released before the sampler runs, at first"),
        pytest.param(MANY_EXPERTS, "0.15.0", A100, 8192 * 2 * 8 * (2048 + 2048), id="kept for good since"),
        pytest.param("openai--gpt-oss-20b", "0.19.0", H100, 0, id="kernels with memory of their own"),
    ],
)
def test_experts_keep_their_workspace_while_the_sampler_runs(
    folder: str, release: str, device: DeviceMemory, kept: int
) -> None:
    asked = shape(max_num_batched_tokens=8192, max_num_seqs=1024)
    profile = published(folder)
    peak = activation_bytes(Setting(profile, asked, device, version(release)), RankLayout(1, 1, 0))
    logits, output = 1024 * profile.padded_vocab_size, 8192 * profile.hidden_size * 2
    libraries = LIBRARIES if device is H100 else 0
    each = 14 if release == "0.19.0" else 38
    assert peak.value == each * logits + output + kept + libraries
