"""What the documents promise is there: files, make targets, manifests, reasons, and the output that they show."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from stowage.api.reasons import Reason
from stowage.api.refusal import Refusal
from stowage.api.support import unsupported_fields
from stowage.api.v1alpha1.deployment import KIND, parse_deployment
from tests.cli.support import stowage

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("e2e/**/README.md")], key=str)
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))

LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MAKE = re.compile(r"(?:^|`|\()make (?:-s )?([a-z]+)", re.MULTILINE)
FILE = re.compile(r"\b((?:examples|deploy|crds|e2e/inventories)/[\w./-]*)")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(text: str, language: str) -> list[str]:
    return [body for kind, body in BLOCK.findall(text) if kind == language]


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_link_to_a_file_leads_somewhere(document: Path) -> None:
    links = [link for link in LINK.findall(document.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_make_target_that_is_named_exists(document: Path) -> None:
    assert set(MAKE.findall(document.read_text(encoding="utf-8"))) - TARGETS == set()


def test_the_patterns_find_what_they_look_for() -> None:
    assert {"docs/reasons.md", "docs/adr/"} <= set(LINK.findall(README))
    assert {"demo", "down", "env"} <= set(MAKE.findall(README))
    assert len(blocks(README, "yaml")) >= 2


def test_every_file_that_a_command_of_the_readme_names_exists() -> None:
    named = {path for body in blocks(README, "") for path in FILE.findall(body)}
    assert "examples/minimal.yaml" in named
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("body", blocks(README, "yaml"))
def test_every_manifest_of_the_readme_is_valid_and_supported(body: str) -> None:
    document = yaml.safe_load(body)
    assert document["kind"] == KIND
    deployment = parse_deployment(document)
    assert not isinstance(deployment, Refusal), deployment
    assert unsupported_fields(deployment.spec) == []


@pytest.mark.parametrize("path", EXAMPLES, ids=name_of)
def test_every_example_is_valid_and_all_but_the_full_one_supported(path: Path) -> None:
    deployment = parse_deployment(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert not isinstance(deployment, Refusal), deployment
    assert bool(unsupported_fields(deployment.spec)) == (path.name == "full.yaml")


def test_troubleshooting_names_only_documented_reasons() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    table = text.partition("## The most frequent reasons")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert len(named) > 15
    assert named - {reason.value for reason in Reason} == set()


def test_the_plan_that_the_readme_shows_is_what_the_command_prints(tmp_path: Path) -> None:
    command, *shown = next(
        body for body in blocks(README, "") if body.startswith("$ stowage plan")
    ).splitlines()
    words = [str(ROOT / word) if (ROOT / word).is_file() else word for word in command.split()[2:]]
    config = files("aiconfigurator_core").joinpath("model_configs", "Qwen--Qwen3-8B_config.json")
    (tmp_path / "config.json").write_text(json.dumps(json.loads(config.read_text())))
    printed = stowage(*words, "--model-dir", str(tmp_path))[1].splitlines()
    expected = [line.partition(" @ ")[0] for line in shown if line.strip() != "…"]
    missing = [line for line in expected if line not in printed]
    assert len(expected) > 5
    assert missing == []


@pytest.mark.parametrize(
    "line", [line for body in blocks(README, "") for line in body.splitlines() if line.startswith("stowage ")]
)
def test_every_command_that_the_readme_names_is_understood(line: str, tmp_path: Path) -> None:
    config = files("aiconfigurator_core").joinpath("model_configs", "Qwen--Qwen3-8B_config.json")
    (tmp_path / "config.json").write_text(config.read_text())
    words = line.partition(" > ")[0].replace("plan.svg", str(tmp_path / "plan.svg")).split()[1:]
    words = [str(ROOT / word) if (ROOT / word).is_file() else word for word in words]
    if words[0] in ("plan", "explain"):
        words += ["--model-dir", str(tmp_path)]
    else:
        words = [word if not word.endswith("Qwen3-8B") else str(tmp_path) for word in words]
    code, out, _ = stowage(*words)
    assert code in (0, 1)
    assert out


def test_the_shape_that_the_readme_asks_for_fits(tmp_path: Path) -> None:
    line = next(each for each in README.splitlines() if each.startswith("stowage memory"))
    config = files("aiconfigurator_core").joinpath("model_configs", "Qwen--Qwen3-8B_config.json")
    (tmp_path / "config.json").write_text(config.read_text())
    words = line.replace("Qwen/Qwen3-8B", str(tmp_path)).split()[1:]
    assert stowage(*words)[0] == 0
