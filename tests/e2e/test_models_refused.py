"""Models that cannot be read: one documented reason and one sentence, and recovery where there can be one."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.operations import Operations
from tests.e2e.workspace import Workspace

Prepare = Callable[[Workspace, str], None]


def _fault(**fault: Any) -> Prepare:
    return lambda desk, name: desk.stack.set_hub_fault(desk.repository(name), **fault)


def _config(edit: Callable[[dict[str, Any]], str]) -> Prepare:
    """Rewrite config.json."""

    def prepare(desk: Workspace, name: str) -> None:
        file: Path = desk.stack.models / desk.repository(name) / "config.json"
        file.write_text(edit(json.loads(file.read_text())))

    return prepare


def _without(key: str) -> Callable[[dict[str, Any]], str]:
    return lambda config: json.dumps({name: value for name, value in config.items() if name != key})


def _remove(pattern: str) -> Prepare:
    def prepare(desk: Workspace, name: str) -> None:
        for file in (desk.stack.models / desk.repository(name)).glob(pattern):
            file.unlink()

    return prepare


def _truncate_weights(desk: Workspace, name: str) -> None:
    (desk.stack.models / desk.repository(name) / "model.safetensors").write_bytes(b"\x07\x00")


@pytest.mark.parametrize(
    ("prepare", "reason", "words"),
    [
        pytest.param(_fault(kind="not_found"), "ModelNotFound", "has no model", id="the Hub answers 404"),
        pytest.param(
            _fault(kind="private"), "ModelNotFound", "has no model", id="a private model looks missing"
        ),
        pytest.param(_fault(kind="unauthorized"), "ModelAccessDenied", "401", id="the Hub answers 401"),
        pytest.param(_fault(kind="gated"), "ModelAccessDenied", "gated", id="a gated model without a token"),
        pytest.param(_fault(kind="rate_limited"), "HubRateLimited", "429", id="the Hub answers 429"),
        pytest.param(_fault(kind="server_error"), "HubUnreachable", "500", id="the Hub answers 500"),
        pytest.param(_config(lambda _: "{"), "InvalidModelConfig", "not JSON", id="config.json is broken"),
        pytest.param(
            _config(_without("hidden_size")),
            "InvalidModelConfig",
            "hidden_size",
            id="config.json lacks a field",
        ),
        pytest.param(
            _config(lambda config: json.dumps({**config, "architectures": ["BertForMaskedLM"]})),
            "UnsupportedArchitecture",
            "BertForMaskedLM",
            id="an architecture whose memory is not known",
        ),
        pytest.param(
            _remove("config.json"), "InvalidModelConfig", "config.json", id="there is no config.json"
        ),
        pytest.param(_truncate_weights, "InvalidCheckpoint", "header", id="a weight file is cut off"),
    ],
)
def test_a_model_that_cannot_be_read(desk: Workspace, prepare: Prepare, reason: str, words: str) -> None:
    name = f"model-{secrets.token_hex(3)}"
    source = desk.model(name)
    prepare(desk, name)
    desk.deploy(name, source=source)
    message = desk.wait_condition("Accepted", "False", reason, name)
    assert words in message
    assert desk.condition("Ready", name)[:2] == ("False", reason)
    assert desk.get("deployments", name) is None


def test_a_model_that_does_not_exist(desk: Workspace) -> None:
    desk.deploy("missing", source="hf://nobody/nothing")
    assert "nobody/nothing" in desk.wait_condition("Accepted", "False", "ModelNotFound", "missing")


def test_a_revision_that_does_not_exist(desk: Workspace) -> None:
    desk.deploy("revision", source=desk.model("revision"), model={"revision": "v9"})
    assert "v9" in desk.wait_condition("Accepted", "False", "RevisionNotFound", "revision")


def test_a_hub_that_is_away_is_said_and_asked_again(workspace: Workspace, operations: Operations) -> None:
    source = workspace.model()
    operations.stack.services["hub"].stop()
    workspace.deploy(source=source)
    message = workspace.wait_condition("Accepted", "False", "HubUnreachable")
    assert "could not be reached" in message
    operations.stack.start_hub()
    workspace.wait_ready()


def test_an_edit_to_a_model_that_can_be_read_helps_at_once(workspace: Workspace) -> None:
    workspace.deploy(source="hf://nobody/nothing")
    workspace.wait_condition("Accepted", "False", "ModelNotFound")
    workspace.deploy()
    workspace.wait_ready()


def test_a_config_map_that_is_not_there_is_awaited(workspace: Workspace) -> None:
    workspace.deploy(model={"configRef": {"configMap": "facts"}})
    assert "facts" in workspace.wait_condition("Accepted", "False", "ConfigMapMissing")
