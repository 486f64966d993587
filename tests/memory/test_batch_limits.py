"""The server's own defaults, which jump with the card."""

from __future__ import annotations

import pytest

from stowage.memory.device import DeviceMemory
from stowage.memory.release.batch_limits import default_batch_limits
from tests.memory.support import A100, B200, H100, L4, NODE, gpu, version
from tests.model.support import published


@pytest.mark.parametrize(
    ("device", "release", "limits"),
    [
        pytest.param(L4, "0.32.0", (256, 2048), id="a small card"),
        pytest.param(A100, "0.32.0", (256, 2048), id="an A100 counts as small"),
        pytest.param(A100, "0.8.5", (1024, 8192), id="it did not before 0.9"),
        pytest.param(H100, "0.32.0", (1024, 8192), id="an H100"),
        pytest.param(A100, "0.8.4", (256, 2048), id="before 0.8.5 only H100 and H200 by name were large"),
        pytest.param(L4, "0.8.2", (1024, 2048), id="before 0.8.4 every card took 1024 requests"),
        pytest.param(B200, "0.32.0", (1024, 16384), id="a card of 160 GiB and more"),
        pytest.param(B200, "0.27.0", (1024, 8192), id="before 0.28 there was no third class"),
        pytest.param(NODE, "0.32.0", (128, 2048), id="a CPU node"),
        pytest.param(
            gpu(121.69, "NVIDIA-GB10", (12, 1)),
            "0.32.0",
            (256, 2048),
            id="a GPU that shares the host's memory",
        ),
    ],
)
def test_defaults(device: DeviceMemory, release: str, limits: tuple[int, int]) -> None:
    assert default_batch_limits(device, version(release)) == limits


def test_the_offline_class_takes_larger_batches() -> None:
    assert default_batch_limits(L4, version(), entry_point="LLM") == (256, 8192)
    assert default_batch_limits(H100, version(), entry_point="LLM") == (1024, 16384)


@pytest.mark.parametrize(
    ("length", "tokens"),
    [
        pytest.param(1024, 2048, id="short prompts"),
        pytest.param(8192, 8192, id="a whole prompt in one step"),
        pytest.param(131072, 2048, id="long ones in chunks"),
    ],
)
def test_the_engine_before_ran_whole_prompts(length: int, tokens: int) -> None:
    assert default_batch_limits(H100, version("0.6.6"), max_model_len=length) == (256, tokens)


@pytest.mark.parametrize(
    ("release", "tokens"),
    [
        pytest.param("0.5.0", 131072, id="0.5.0 knows no chunks"),
        pytest.param("0.6.2", 512, id="0.6.2 takes small ones"),
        pytest.param("0.6.4", 2048, id="0.6.4 takes larger ones"),
    ],
)
def test_chunks_of_long_contexts_by_release(release: str, tokens: int) -> None:
    assert default_batch_limits(H100, version(release), max_model_len=131072) == (256, tokens)


@pytest.mark.parametrize(
    ("folder", "release", "tokens"),
    [
        pytest.param("google--gemma-4-26B-A4B-it", "0.25.1", 2496, id="a video that may not be cut"),
        pytest.param("google--gemma-4-26B-A4B-it", "0.20.2", 2048, id="which 0.20 did not mind"),
        pytest.param("Qwen--Qwen2.5-VL-7B-Instruct", "0.25.1", 2048, id="videos that may be cut"),
        pytest.param("Qwen--Qwen2.5-VL-7B-Instruct", "0.7.3", 5120, id="V0 gave images room in general"),
        pytest.param("Qwen--Qwen3-32B", "0.7.3", 2048, id="not models of text alone"),
    ],
)
def test_images_and_videos_raise_the_batch(folder: str, release: str, tokens: int) -> None:
    found = default_batch_limits(L4, version(release), max_model_len=2048, profile=published(folder))
    assert found == (256, tokens)
