"""Deletion at odd moments leaves nothing behind, and the name is free again."""

from __future__ import annotations

import pytest

from tests.e2e.workspace import Workspace


@pytest.mark.parametrize(
    "cascade",
    [
        pytest.param("background", id="in the background"),
        pytest.param("foreground", id="in the foreground, the children first"),
    ],
)
def test_deletion_while_the_pod_loads(workspace: Workspace, cascade: str) -> None:
    workspace.deploy(source=workspace.model(fault="hang"))
    workspace.wait_condition("Progressing", "True", "LoadingModel")
    workspace.kubectl("delete", "llmd", "llm", f"--cascade={cascade}", "--wait=false")
    workspace.wait("the end of the LLMDeployment", lambda: workspace.get("llmdeployments", "llm") is None)
    workspace.wait_gone()


def test_deletion_while_the_model_is_read_by_a_pod(workspace: Workspace) -> None:
    source = workspace.model()
    workspace.deploy(source=source, model={"tokenSecretRef": {"name": "missing", "key": "token"}})
    workspace.wait("the inspection pod", workspace.rendered)
    workspace.kubectl("delete", "llmd", "llm", "--wait=false")
    workspace.wait_gone()


def test_a_name_can_be_used_again_at_once(workspace: Workspace) -> None:
    workspace.serve()
    before = workspace.pod_uids()
    workspace.kubectl("delete", "llmd", "llm", "--wait=false")
    workspace.wait("the end of the LLMDeployment", lambda: workspace.get("llmdeployments", "llm") is None)
    workspace.deploy()
    workspace.wait("a new pod alone", lambda: workspace.pod_uids() and not workspace.pod_uids() & before)
    workspace.wait_ready()
