"""What tests of commands share: a folder with a model, nodes and a manifest, and one way to run a command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from stowage.cli import app
from tests.planning.builders import llama_config, mixed_nodes

Answer = tuple[int, str, str]
"""Exit code, standard output and standard error of a command."""


def write(path: Path, *documents: Any) -> Path:
    path.write_text(yaml.safe_dump_all(documents))
    return path


def manifest(name: str = "llama", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "stowage.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": name},
        "spec": {"model": {"source": "hf://org/model"}, **spec},
    }


def make_files(folder: Path, **spec: Any) -> Path:
    """Write `model`, `nodes.yaml` and `llama.yaml`, what a planning command reads unless told otherwise."""
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text(json.dumps(llama_config()))
    write(folder / "nodes.yaml", *mixed_nodes())
    write(folder / "llama.yaml", manifest(**spec))
    return folder


def stowage(*arguments: str, columns: int | None = None) -> Answer:
    """Run the command line; `columns` None: standard output is no terminal."""
    environment = {"COLUMNS": None if columns is None else str(columns)}
    result = CliRunner().invoke(app, arguments, env=environment)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def run(files: Path, command: str, *more: str, columns: int | None = None, **replaced: str) -> Answer:
    """Run a planning command on the files; `replaced` names others for `manifest`, `inventory` or `model`."""
    names = {"manifest": "llama.yaml", "inventory": "nodes.yaml", "model": "model", **replaced}
    arguments = (
        command,
        "-f",
        str(files / names["manifest"]),
        "--inventory",
        str(files / names["inventory"]),
    )
    return stowage(*arguments, "--model-dir", str(files / names["model"]), *more, columns=columns)
