"""The server's own defaults, which jump with the card."""

from __future__ import annotations

import pytest

from stowage.memory.batch_limits import default_batch_limits
from stowage.memory.device import DeviceMemory
from tests.memory.support import A100, B200, H100, L4, NODE, gpu, version


@pytest.mark.parametrize(
    ("device", "release", "limits"),
    [
        pytest.param(L4, "0.32.0", (256, 2048), id="a small card"),
        pytest.param(A100, "0.32.0", (256, 2048), id="an A100 counts as small"),
        pytest.param(A100, "0.8.5", (1024, 8192), id="it did not before 0.9"),
        pytest.param(H100, "0.32.0", (1024, 8192), id="an H100"),
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
