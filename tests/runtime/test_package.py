"""The package as a whole: what it may import, which Python may read it, and the zipapp's bytes."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tools.build_agent import PACKAGE, build_agent, main

SOURCES = sorted(PACKAGE.rglob("*.py"))
# What the image's own Python brings, for the one child that downloads.
IMPORTED_LATE = {"huggingface_hub"}


def name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_python_3_9_can_read_it(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    future = [alias.name for node in imports if node.module == "__future__" for alias in node.names]
    assert len(tree.body) <= 1 or future == ["annotations"]


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_it_imports_the_standard_library_only(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        for module in modules:
            top = module.split(".")[0]
            assert top in sys.stdlib_module_names or top == "stowage_runtime" or top in IMPORTED_LATE, module


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_nothing_newer_than_3_9_is_called(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            given = {keyword.arg for keyword in node.keywords}
            called = ast.unparse(node.func)
            assert not (called == "zip" and "strict" in given)
            assert not (called in ("dataclass", "dataclasses.dataclass") and given & {"slots", "kw_only"})


def test_the_zipapp_has_the_same_bytes_every_time(tmp_path: Path) -> None:
    build_agent(tmp_path / "one.pyz")
    os.utime(PACKAGE / "cli.py")
    assert main([str(tmp_path / "two.pyz")]) == 0
    assert (tmp_path / "one.pyz").read_bytes() == (tmp_path / "two.pyz").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.pyz") as archive:
        names = archive.namelist()
    assert names == sorted(names)
    assert "stowage_runtime/data/log_lines.json" in names
    assert not [entry for entry in names if "pycache" in entry]


def test_the_zipapp_runs_alone(zipapp: Path) -> None:
    command = [sys.executable, "-I", str(zipapp), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    assert "inspect" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        pytest.param([], 2, id="no target"),
        pytest.param(["-h"], 2, id="help"),
        pytest.param(["/no/such/folder/agent.pyz"], 1, id="a folder that is not there"),
    ],
)
def test_a_wrong_call_is_explained(
    arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    assert capsys.readouterr().err
