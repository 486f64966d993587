"""What the tests of the end-to-end parts share: a hub with tiny models in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.hub import Hub
from e2e.tinymodel import TinyModel


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    TinyModel(num_hidden_layers=2).write(folder)
    return folder


@pytest.fixture
def hub_root(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    TinyModel(num_hidden_layers=2).write(root / "org" / "tiny")
    TinyModel(num_hidden_layers=2, shards=3).write(root / "org" / "sharded")
    return root


@pytest.fixture
def hub(hub_root: Path) -> Iterator[Hub]:
    with Hub(hub_root) as hub:
        yield hub
