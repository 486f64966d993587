"""Which batch sizes are captured, and where graphs cost nothing."""

from __future__ import annotations

import pytest

from stowage.memory.cuda_graphs import capture_sizes, graph_bytes
from tests.memory.support import B200, H100, MIB, NODE, shape, version


@pytest.mark.parametrize(
    ("seqs", "tokens", "release", "number", "largest"),
    [
        pytest.param(256, 2048, "0.32.0", 51, 512, id="the default of small cards"),
        pytest.param(1024, 8192, "0.32.0", 51, 512, id="the ceiling of 512"),
        pytest.param(1024, 8192, "0.10.2", 67, 512, id="old releases step by eight throughout"),
        pytest.param(1, 2048, "0.32.0", 2, 2, id="one request"),
        pytest.param(5, 2048, "0.32.0", 5, 10 - 2, id="few requests add their own size"),
        pytest.param(64, 100, "0.32.0", 3 + 12 + 1, 100, id="few tokens add their own size"),
    ],
)
def test_sizes(seqs: int, tokens: int, release: str, number: int, largest: int) -> None:
    sizes = capture_sizes(seqs, tokens, 512, version(release))
    assert (len(sizes), sizes[-1]) == (number, largest)


def test_blackwell_captures_up_to_1024_from_0_29_on() -> None:
    big = shape(max_num_seqs=1024, max_num_batched_tokens=16384)
    per_size = 12 * MIB
    assert graph_bytes(big, B200, version("0.32.0"), 32).value == 83 * per_size
    assert graph_bytes(big, B200, version("0.28.0"), 32).value == 51 * per_size
    assert graph_bytes(big, H100, version("0.32.0"), 32).value == 51 * per_size


def test_no_graphs_when_eager_or_on_cpus() -> None:
    assert graph_bytes(shape(enforce_eager=True), H100, version(), 32).high == 0
    assert graph_bytes(shape(), NODE, version(), 32).high == 0
