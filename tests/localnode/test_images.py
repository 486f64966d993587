from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from e2e.localnode.images import ImageCatalog, ImageError

CATALOG = Path(__file__).resolve().parents[2] / "e2e" / "images.yaml"
VARIABLES = {"STOWAGE_REPO": "/r", "STOWAGE_VENV": "/v", "STOWAGE_VLLM_ENV": "/e", "STOWAGE_AGENT_DIR": "/a"}


@pytest.mark.parametrize(
    ("image", "engine", "path"),
    [
        ("vllm/vllm-openai:v0.32.0", "simulated", "/r/e2e/fakebin"),
        ("vllm/vllm-openai-cpu:v0.32.0", "real", "/e/bin"),
        ("ghcr.io/stowage-dev/stowage:0.1.0", "none", "/v/bin"),
        ("python:3.11", "none", "/v/bin"),
    ],
)
def test_the_list_of_this_repository(image: str, engine: str, path: str) -> None:
    found = ImageCatalog.load(CATALOG, VARIABLES).find(image)
    assert found is not None
    assert (found.engine, found.path[0]) == (engine, path)


def test_the_stand_in_is_first_on_the_python_path() -> None:
    found = ImageCatalog.load(CATALOG, VARIABLES).find("vllm/vllm-openai:v1")
    assert found is not None
    assert found.env["PYTHONPATH"].split(":")[0] == "/r/e2e/standin"


@pytest.mark.parametrize("image", ["nginx:1", "docker.io/vllm/vllm-openai:v1", "vllm/vllm-openai", "python"])
def test_what_is_not_listed_is_not_found(image: str) -> None:
    assert ImageCatalog.load(CATALOG, VARIABLES).find(image) is None


def test_a_variable_without_a_value_is_named() -> None:
    catalog = ImageCatalog.load(CATALOG, {"STOWAGE_REPO": "/r"})
    with pytest.raises(ImageError, match="STOWAGE_VLLM_ENV"):
        catalog.find("vllm/vllm-openai-cpu:v0.32.0")


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        pytest.param({"path": []}, "no image pattern", id="an entry without a pattern"),
        pytest.param({"image": "a:*", "paths": []}, "unknown key paths", id="a misspelt key"),
        pytest.param({"image": "a:*", "engine": "fake"}, "engine 'fake'", id="an engine that does not exist"),
    ],
)
def test_bad_entries_are_refused(entry: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ImageError, match=sentence):
        ImageCatalog([entry], {})
