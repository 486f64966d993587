"""How layers are dealt to pipeline stages."""

from __future__ import annotations

import pytest

from stowage.memory.pipeline import stage_layers


@pytest.mark.parametrize(
    ("layers", "stages", "sizes"),
    [
        pytest.param(32, 1, [32], id="one stage has all"),
        pytest.param(80, 4, [20, 20, 20, 20], id="an even split"),
        pytest.param(61, 4, [15, 15, 16, 15], id="one left over goes before the last"),
        pytest.param(62, 4, [15, 16, 16, 15], id="two left over spare both ends"),
        pytest.param(63, 4, [16, 16, 16, 15], id="three left over reach the first"),
        pytest.param(3, 2, [2, 1], id="two stages give the first more"),
    ],
)
def test_sizes_of_stages(layers: int, stages: int, sizes: list[int]) -> None:
    parts = stage_layers(layers, stages)
    assert [len(part) for part in parts] == sizes
    assert [number for part in parts for number in part] == list(range(layers))
