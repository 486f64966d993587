"""Models that the operator may not or cannot read itself: gated, on a volume, or described by a ConfigMap."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.hub.repository import snapshot_of_folder
from e2e.tinymodel import TinyModel
from tests.e2e.workspace import Json, Workspace

RIGHT, WRONG = "hf_right", "hf_wrong"


def secret(token: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "hub"},
        "stringData": {"token": token},
    }


def gated(workspace: Workspace) -> Json:
    """An LLMDeployment of a gated model, with a reference to a token."""
    source = workspace.model()
    workspace.stack.set_hub_fault(workspace.repository(), kind="gated", tokens=[RIGHT])
    return workspace.manifest(source=source, model={"tokenSecretRef": {"name": "hub", "key": "token"}})


def inspection_pods(workspace: Workspace) -> list[str]:
    found = workspace.reader.items("pods", workspace.namespace, labelSelector="stowage.dev/role=inspect")
    return [pod["metadata"]["name"] for pod in found]


def test_a_gated_model_is_read_by_a_pod_that_has_the_token(workspace: Workspace) -> None:
    restricted = "pod-security.kubernetes.io/enforce=restricted"
    workspace.cluster.kubectl("label", "namespace", workspace.namespace, restricted)
    workspace.apply(secret(RIGHT), gated(workspace))
    workspace.wait_ready()
    workspace.wait("the inspection pod to be gone", lambda: not inspection_pods(workspace))
    everything = str(workspace.reader.items("llmdeployments", workspace.namespace))
    everything += str(workspace.reader.items("deployments", workspace.namespace))
    everything += str(workspace.reader.items("configmaps", workspace.namespace))
    assert RIGHT not in everything
    assert RIGHT not in workspace.stack.services["operator"].log.read_text()


def test_a_token_without_access_is_said_and_not_shown(workspace: Workspace) -> None:
    workspace.apply(secret(WRONG), gated(workspace))
    message = workspace.wait_condition("Accepted", "False", "ModelAccessDenied")
    assert "403" in message or "gated" in message
    assert WRONG not in message


def test_a_secret_that_is_not_there_is_named(workspace: Workspace) -> None:
    workspace.apply(gated(workspace))
    assert "hub" in workspace.wait_condition("Accepted", "False", "SecretMissing")
    workspace.apply(secret(RIGHT))
    workspace.wait_ready()


@pytest.fixture
def volume(workspace: Workspace, tmp_path: Path) -> Json:
    """A statically bound claim whose folder `tiny` holds a model; removed with the test."""
    TinyModel().write(tmp_path / "tiny")
    tmp_path.chmod(0o755)
    name = f"models-{workspace.namespace}"
    common = {"accessModes": ["ReadOnlyMany"], "storageClassName": "", "volumeMode": "Filesystem"}
    claim_ref = {"namespace": workspace.namespace, "name": "models"}
    capacity = {"storage": "1Gi"}
    volume: Json = {
        "capacity": capacity,
        "hostPath": {"path": str(tmp_path)},
        "claimRef": claim_ref,
        **common,
    }
    claim: Json = {"volumeName": name, "resources": {"requests": capacity}, **common}
    workspace.apply(
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": volume}
    )
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "models"},
        "spec": claim,
    }


def test_a_model_on_a_volume_is_inspected_and_served_from_there(workspace: Workspace, volume: Json) -> None:
    workspace.deploy(source="pvc://models/tiny")
    message = workspace.wait_condition("Accepted", "False", "VolumeClaimMissing")
    assert "models" in message
    workspace.apply(volume)
    workspace.wait_ready()
    template = workspace.need("deployments")["spec"]["template"]["spec"]
    assert {"name": "model", "mountPath": "/stowage/model", "readOnly": True, "subPath": "tiny"} in template[
        "containers"
    ][0]["volumeMounts"]
    assert workspace.ask()["usage"]["completion_tokens"] == 4


def test_a_folder_of_the_volume_that_is_not_there(workspace: Workspace, volume: Json) -> None:
    workspace.apply(volume)
    workspace.deploy(source="pvc://models/nothing")
    assert "nothing" in workspace.wait_condition("Accepted", "False", "ModelNotFound")


def test_a_config_map_replaces_the_question_to_the_hub(workspace: Workspace) -> None:
    source = workspace.model()
    folder = workspace.stack.models / workspace.repository()
    command = [sys.executable, "-m", "stowage.cli", "inspect", str(folder)]
    summary = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    # What `stowage inspect hf://…` says on a machine that reaches the Hub.
    summary |= {"source": source, "revision": snapshot_of_folder(folder).commit}
    facts = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "facts"}}
    workspace.stack.set_hub_fault(workspace.repository(), kind="server_error")
    workspace.apply({**facts, "data": {"checkpoint.json": json.dumps(summary)}})
    workspace.deploy(source=source, model={"configRef": {"configMap": "facts"}})
    workspace.wait_condition("Planned", "True", "Fits")
    workspace.stack.set_hub_fault(workspace.repository())
    workspace.wait_ready()
