"""The operator's price table: read once, refused with one sentence where it cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from stowage.feed.price_file import PriceFileError, read_price_file
from stowage.settings import BadSetting, Settings


def test_a_table_is_read(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text("perGpuHour:\n  NVIDIA-L4: 0.5\n")
    assert read_price_file(str(path)).per_gpu_hour["NVIDIA-L4"] == 0.5
    assert Settings(prices=str(path)).engine_options().prices.per_gpu_hour["NVIDIA-L4"] == 0.5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(
            "perGpuHour: {NVIDIA-L5000: 1}", "not a GPU that this version knows", id="an unknown GPU"
        ),
        pytest.param("prices: 1", "needs perGpuHour", id="another document"),
        pytest.param("{", "is not YAML", id="not YAML"),
        pytest.param(None, "cannot be read", id="no file"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_file(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "prices.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(PriceFileError, match=words) as refused:
        read_price_file(str(path))
    assert str(path) in str(refused.value)
    with pytest.raises(BadSetting, match="Setting prices"):
        Settings(prices=str(path)).price_table()
