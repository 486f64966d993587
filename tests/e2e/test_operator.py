"""What happens to the operator and to the control plane must not happen to what they serve."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.controlplane.control_plane import ControlPlane
from e2e.stack.stack import AGENT_IMAGE, OPERATOR_ACCOUNT, OPERATOR_NAMESPACE
from tests.e2e.operations import Operations
from tests.e2e.waiting import wait_until
from tests.e2e.workspace import Workspace

CRD = "crd/llmdeployments.stowage.dev"
NEWER_IMAGE = AGENT_IMAGE.rpartition(":")[0] + ":9.9.9"


def test_a_crash_while_a_pod_loads_changes_nothing(workspace: Workspace, operations: Operations) -> None:
    workspace.deploy(source=workspace.model(fault="slow_start", after_seconds=5.0))
    workspace.wait_condition("Progressing", "True", "LoadingModel")
    before = workspace.pod_uids()
    operations.crash_operator()
    operations.start_operator()
    workspace.wait_ready()
    assert workspace.pod_uids() == before
    assert workspace.need("deployments")["metadata"]["generation"] == 1


def test_a_crash_before_anything_is_made_loses_nothing(workspace: Workspace, operations: Operations) -> None:
    source = workspace.model()
    workspace.stack.set_hub_fault(workspace.repository(), kind="server_error")
    workspace.deploy(source=source)
    workspace.wait_condition("Accepted", "False", "HubUnreachable")
    operations.crash_operator()
    workspace.stack.set_hub_fault(workspace.repository())
    operations.start_operator()
    workspace.wait_ready()


def test_what_changed_while_the_operator_was_away_is_seen(
    workspace: Workspace, operations: Operations
) -> None:
    workspace.serve()
    operations.stop_operator()
    workspace.kubectl("scale", "llmd/llm", "--replicas=2")
    workspace.kubectl("delete", "service", "llm")
    workspace.deploy("second")
    operations.start_operator()
    workspace.wait_ready("second")
    workspace.wait("two replicas", lambda: workspace.status().get("readyReplicas") == 2)
    assert workspace.get("services", "llm") is not None


def test_an_upgrade_restarts_no_pod_until_something_else_changes(
    workspace: Workspace, operations: Operations
) -> None:
    workspace.serve()
    before, generation = workspace.pod_uids(), workspace.need("deployments")["metadata"]["generation"]
    operator = operations.replace_operator(agent_image=NEWER_IMAGE)
    try:
        workspace.wait("the newer operator to look", lambda: operator.reconciliations() >= 3)
        workspace.kubectl("scale", "llmd/llm", "--replicas=2")
        workspace.wait("two replicas", lambda: workspace.status().get("readyReplicas") == 2)
        images = {pod["spec"]["initContainers"][0]["image"] for pod in workspace.pods()}
        assert images == {AGENT_IMAGE}
        assert before < workspace.pod_uids()
        assert workspace.need("deployments")["metadata"]["generation"] == generation + 1, (
            "only replicas changed"
        )
        workspace.deploy(runtime={"env": [{"name": "VLLM_LOGGING_LEVEL", "value": "DEBUG"}]})
        workspace.wait("the newer agent", lambda: _agent_image(workspace) == NEWER_IMAGE)
    finally:
        operations.replace_operator()


def _agent_image(workspace: Workspace) -> str:
    template = workspace.need("deployments")["spec"]["template"]
    image: str = template["spec"]["initContainers"][0]["image"]
    return image


def test_an_api_server_that_dies_and_comes_back(
    workspace: Workspace, operations: Operations, control_plane: ControlPlane
) -> None:
    workspace.deploy("loading", source=workspace.model("slow", fault="slow_start", after_seconds=5.0))
    workspace.serve()
    before = workspace.pod_uids()
    control_plane.restart("kube-apiserver")
    control_plane.wait_ready()
    # Where it takes longer than the Lease allows, the operator ends, as it must, and its kubelet starts another.
    operations.tolerate_lost_lease()
    workspace.wait_ready("loading")
    workspace.wait_ready()
    assert workspace.pod_uids() == before
    workspace.kubectl("scale", "llmd/llm", "--replicas=2")
    workspace.wait("two replicas", lambda: workspace.status().get("readyReplicas") == 2)
    assert before < workspace.pod_uids()


def test_a_standby_takes_over_when_the_leader_is_killed(workspace: Workspace, operations: Operations) -> None:
    workspace.serve()
    before = workspace.pod_uids()
    patient = {"STOWAGE_LEASE_DURATION": "6", "STOWAGE_RENEW_DEADLINE": "5", "STOWAGE_RETRY_PERIOD": "1"}
    standby = operations.start_standby(variables=patient)
    wait_until(lambda: standby.probe("/readyz")[0] == 200, "the standby to be ready")
    assert "holds the Lease" not in standby.output
    operations.operator.kill()
    try:
        wait_until(lambda: "At work" in standby.output, "the standby to work", explain=lambda: standby.output)
        workspace.kubectl("delete", "service", "llm")
        workspace.wait("the Service", lambda: workspace.get("services", "llm"))
        assert workspace.pod_uids() == before
    finally:
        standby.stop()
        operations.bring_up()


@pytest.fixture
def crd_is_back(operations: Operations) -> Iterator[None]:
    """The CRD that a test removes is there again afterwards."""
    yield
    operations.stack.install_crd()


@pytest.mark.usefixtures("crd_is_back")
def test_a_missing_crd_is_said_and_waited_for(workspace: Workspace, operations: Operations) -> None:
    operations.stop_operator()
    workspace.cluster.kubectl("delete", CRD)
    operator = operations.start_operator(wait=False)
    wait_until(lambda: "is not installed" in operator.output, "the sentence about the CRD")
    status, text = operator.probe("/readyz")
    assert (status, operator.probe("/healthz")[0]) == (503, 200)
    assert "CustomResourceDefinition" in text
    operations.stack.install_crd()
    wait_until(lambda: operator.probe("/readyz")[0] == 200, "the operator to be ready")
    workspace.serve()


@pytest.mark.parametrize(
    ("verb", "resource", "answer"),
    [
        pytest.param("get", "secrets", "no", id="Secrets are not read"),
        pytest.param("list", "secrets", "no", id="Secrets are not listed"),
        pytest.param("update", "llmdeployments.stowage.dev", "no", id="specs belong to users"),
        pytest.param("create", "pods --subresource=exec", "no", id="no pod is entered"),
        pytest.param("patch", "deployments.apps", "yes", id="Deployments are written"),
    ],
)
def test_the_operators_rights(operations: Operations, verb: str, resource: str, answer: str) -> None:
    who = f"--as=system:serviceaccount:{OPERATOR_NAMESPACE}:{OPERATOR_ACCOUNT}"
    kubectl = operations.stack.cluster.kubectl
    question = ("auth", "can-i", verb, *resource.split(), who, "-A")
    assert kubectl(*question, check=False).stdout.strip() == answer
