"""Which batch sizes are captured, and where graphs cost nothing."""

from __future__ import annotations

from typing import Any

import pytest

from stowage.memory.cuda_graphs import graph_bytes
from stowage.memory.device import DeviceMemory
from stowage.memory.setting import Setting
from tests.memory.support import A100, B200, H100, MIB, NODE, shape, version
from tests.model.support import published

LLAMA, GPT_OSS = "meta-llama--Llama-3.1-8B-Instruct", "openai--gpt-oss-20b"
PER_SIZE = 12 * MIB


def graphs(folder: str, device: DeviceMemory, release: str = "0.32.0", **changes: Any) -> float:
    """Give the graphs of a model as if it had 32 layers, so that a size counts once."""
    return graph_bytes(Setting(published(folder), shape(**changes), device, version(release)), 32).value


@pytest.mark.parametrize(
    ("seqs", "tokens", "release", "number"),
    [
        pytest.param(256, 2048, "0.32.0", 51, id="the default of small cards"),
        pytest.param(1024, 8192, "0.32.0", 51, id="the ceiling of 512"),
        pytest.param(1024, 8192, "0.10.2", 67, id="old releases step by eight throughout"),
        pytest.param(1, 2048, "0.32.0", 2, id="one request"),
        pytest.param(5, 2048, "0.32.0", 5, id="few requests add their own size"),
        pytest.param(64, 100, "0.32.0", 3 + 12 + 1, id="few tokens add their own size"),
    ],
)
def test_number_of_sizes(seqs: int, tokens: int, release: str, number: int) -> None:
    found = graphs(LLAMA, A100, release, max_num_seqs=seqs, max_num_batched_tokens=tokens)
    assert found == number * PER_SIZE


def test_blackwell_captures_up_to_1024_from_0_29_on() -> None:
    big = {"max_num_seqs": 1024, "max_num_batched_tokens": 16384}
    assert graphs(LLAMA, B200, "0.32.0", **big) == 83 * PER_SIZE
    assert graphs(LLAMA, B200, "0.28.0", **big) == 51 * PER_SIZE
    assert graphs(LLAMA, A100, "0.32.0", **big) == 51 * PER_SIZE


@pytest.mark.parametrize(
    ("release", "largest", "step"),
    [
        pytest.param("0.10.1", 32, 8, id="not yet: twice the requests"),
        pytest.param("0.10.2", 1024, 16, id="1024"),
        pytest.param("0.11.0", 992, 16, id="992, what FlashAttention 3 then took"),
        pytest.param("0.13.0", 1024, 16, id="1024 again"),
    ],
)
def test_an_architecture_may_raise_the_ceiling(release: str, largest: int, step: int) -> None:
    """GptOssForCausalLMConfig sets the largest size, however few requests there may be."""
    sizes = {1, 2, 4, *range(8, min(largest + 1, 256), 8), *range(256, largest + 1, step)}
    found = graphs(GPT_OSS, A100, release, max_num_seqs=16, max_num_batched_tokens=8192)
    assert found == len(sizes) * PER_SIZE


@pytest.mark.parametrize(
    ("release", "seqs", "tp", "scratch"),
    [
        pytest.param("0.10.2", 1024, 1, 0, id="no graphs of whole steps by default"),
        pytest.param("0.11.0", 1024, 1, 16 * 512 * 32 * 129 * 4, id="16 parts"),
        pytest.param("0.19.0", 1024, 1, 32 * 512 * 32 * 129 * 4, id="32 parts: 258 MiB, as logged for 8B"),
        pytest.param("0.19.0", 1024, 4, 32 * 512 * 8 * 129 * 4, id="heads of the rank"),
        pytest.param("0.19.0", 64, 1, 32 * 64 * 32 * 129 * 4, id="no larger than a decode step gets"),
    ],
)
def test_graphs_of_whole_steps_hold_the_parts_of_split_attention(
    release: str, seqs: int, tp: int, scratch: int
) -> None:
    limits = {"max_num_seqs": seqs, "max_num_batched_tokens": 8192, "tensor_parallel_size": tp}
    assert graphs(LLAMA, H100, release, **limits) - graphs(LLAMA, A100, release, **limits) == scratch


def test_no_graphs_when_eager_or_on_cpus() -> None:
    for device, eager in ((H100, True), (NODE, False)):
        setting = Setting(published(LLAMA), shape(enforce_eager=eager), device, version())
        assert graph_bytes(setting, 32).high == 0
