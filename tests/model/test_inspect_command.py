"""`stowage inspect` and reading folders: the same summary as from the Hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from stowage.api.refusal import Refusal
from stowage.commands import inspect as inspect_module
from stowage.commands.memory import command as memory_module
from stowage.feed.models.local_checkpoint import read_folder
from stowage_runtime.contract import CheckpointSummary
from tests.model.support import MODELS, TINY, config_of, headers_of, profile_of, summary_of, write_weights


@pytest.fixture(scope="module")
def app() -> typer.Typer:
    made = typer.Typer()
    inspect_module.register(made)
    memory_module.register(made)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    write_weights(tmp_path / "model.safetensors", headers_of(profile_of(TINY)))
    return tmp_path


def test_a_folder_is_summarised(app: typer.Typer, folder: Path) -> None:
    result = CliRunner().invoke(app, ["inspect", str(folder)])
    assert result.exit_code == 0
    assert result.output.count("\n") == 1
    summary = CheckpointSummary.from_json(result.output)
    assert dict(summary.config) == TINY
    assert summary.files == 1
    assert summary.total_bytes == sum(group.count * group.tensor_bytes for group in summary.tensors)


def test_a_printed_summary_is_read_back(app: typer.Typer, folder: Path, tmp_path: Path) -> None:
    printed = CliRunner().invoke(app, ["inspect", str(folder)]).output
    other = tmp_path / "other"
    other.mkdir()
    (other / "checkpoint.json").write_text(printed)
    assert read_folder(other) == read_folder(folder)


def test_a_checkpoint_json_of_another_form_is_left_alone(folder: Path) -> None:
    before = read_folder(folder)
    (folder / "checkpoint.json").write_text(json.dumps({"total_size_bytes": 1}))
    assert read_folder(folder) == before


def test_a_configuration_alone_gives_no_tensors() -> None:
    name = "Qwen--Qwen3-0.6B"
    summary = read_folder(MODELS / name, "hf://test/model")
    assert isinstance(summary, CheckpointSummary)
    assert summary.tensors == ()
    assert dict(summary.config) == dict(summary_of(config_of(name)).config)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["not-a-model"], "InvalidSpec", id="neither folder nor model"),
        pytest.param(["s3://bucket/model"], "InvalidSpec", id="another kind of source"),
        pytest.param([str(MODELS)], "InvalidModelConfig", id="a folder without config.json"),
    ],
)
def test_bad_input_ends_with_two_and_a_sentence(app: typer.Typer, arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(app, ["inspect", *arguments])
    assert result.exit_code == 2
    assert words in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        pytest.param("model.safetensors", b"", "InvalidCheckpoint", id="an empty weight file"),
        pytest.param(
            "model.safetensors", b"\x05\0\0\0\0\0\0\0[1,2]", "InvalidCheckpoint", id="a list as header"
        ),
        pytest.param(
            "checkpoint.json", b'{"tensors": 1}', "InvalidCheckpoint", id="a summary with wrong fields"
        ),
        pytest.param("config.json", b"nope", "InvalidModelConfig", id="a config.json that is no JSON"),
    ],
)
def test_broken_folders(folder: Path, file: str, content: bytes, reason: str) -> None:
    (folder / file).write_bytes(content)
    answer = read_folder(folder)
    assert isinstance(answer, Refusal)
    assert answer.reason.value == reason
