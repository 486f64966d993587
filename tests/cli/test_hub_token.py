"""The command line reads gated models with HF_TOKEN, and says so where the Hub refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from e2e.hub import Fault, Hub
from stowage.cli import app
from tests.hardware.objects import gpu_node
from tests.model.support import TINY, headers_of, profile_of, write_weights

GATED = "org/gated"
TOKEN = "hf_good"


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    folder = tmp_path / "hub" / GATED
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(TINY))
    write_weights(folder / "model.safetensors", headers_of(profile_of(TINY)))
    with Hub(tmp_path / "hub") as server:
        server.set_fault(GATED, Fault(kind="gated", tokens=(TOKEN,)))
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


@pytest.fixture
def commands(tmp_path: Path) -> dict[str, list[str]]:
    manifest = {
        "apiVersion": "stowage.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": "llm"},
        "spec": {"model": {"source": f"hf://{GATED}"}},
    }
    (tmp_path / "llm.yaml").write_text(yaml.safe_dump(manifest))
    (tmp_path / "nodes.yaml").write_text(yaml.safe_dump(gpu_node("l4", "NVIDIA-L4", 1)))
    return {
        "plan": ["plan", "-f", str(tmp_path / "llm.yaml"), "--inventory", str(tmp_path / "nodes.yaml")],
        "inspect": ["inspect", f"hf://{GATED}"],
        "memory": ["memory", "--model", GATED, "--gpu", "NVIDIA-L4"],
    }


COMMANDS = ("plan", "inspect", "memory")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_token_opens_a_gated_model(
    name: str, commands: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    result = CliRunner().invoke(app, commands[name])
    assert (result.exit_code, result.stderr) == (0, "")


@pytest.mark.parametrize("name", COMMANDS)
def test_without_a_token_the_refusal_says_how_to_give_one(name: str, commands: dict[str, list[str]]) -> None:
    result = CliRunner().invoke(app, commands[name])
    assert result.exit_code == 2
    assert GATED in result.stderr
    assert "export HF_TOKEN" in result.stderr
    assert "tokenSecretRef" not in result.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_a_token_without_access_is_named_and_never_printed(
    name: str, commands: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    result = CliRunner().invoke(app, commands[name])
    assert result.exit_code == 2
    assert "token in HF_TOKEN" in result.stderr
    assert "hf_other" not in result.stderr
