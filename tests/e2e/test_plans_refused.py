"""Plans that cannot be: what is missing is said, and it goes on by itself once it is there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.controlplane.cluster import Cluster
from e2e.stack.lanes import LANE_LABEL, lane_node
from tests.e2e.workspace import Json, Workspace


@pytest.mark.parametrize(
    ("name", "spec", "reason", "words"),
    [
        pytest.param(
            "three",
            {"parallelism": {"tensor": 3}},
            "InvalidParallelism",
            "3 does not divide the 8 attention heads",
            id="a tensor parallel size that does not divide the heads",
        ),
        pytest.param(
            "eight",
            {"parallelism": {"tensor": 8}},
            "InsufficientGPUs",
            "4",
            id="more GPUs than one node has",
        ),
        pytest.param(
            "wrong-gpu",
            {"hardware": {"gpus": ["NVIDIA-H100-80GB-HBM3"]}},
            "NoMatchingGPU",
            "NVIDIA-H100-80GB-HBM3",
            id="a GPU that no node has",
        ),
        pytest.param(
            "no-node",
            {"hardware": {"nodeSelector": {LANE_LABEL: "nowhere"}}},
            "NoMatchingGPU",
            "nowhere",
            id="a selector that no node matches",
        ),
        pytest.param(
            "long",
            {"workload": {"maxModelLen": 1_000_000}},
            "ContextTooLong",
            "1,000,000",
            id="a context that the model does not have",
        ),
    ],
)
def test_a_plan_that_cannot_be(
    desk: Workspace, name: str, spec: dict[str, Any], reason: str, words: str
) -> None:
    desk.deploy(name, source=desk.model(), **spec)
    message = desk.wait_condition("Planned", "False", reason, name)
    assert words in message
    assert desk.condition("Ready", name)[:2] == ("False", reason)
    assert desk.get("deployments", name) is None


class Nodes:
    """Node objects of a test's own; nobody runs pods on them."""

    def __init__(self, cluster: Cluster, lane: str) -> None:
        self.cluster = cluster
        self.lane = lane
        self.names: list[str] = []

    @property
    def hardware(self) -> Json:
        return {"nodeSelector": {LANE_LABEL: self.lane}}

    def add(self, inventory: str = "4x-l4", **labels: str) -> str:
        """Create a ready node like those of an inventory, with some labels changed."""
        name = f"{self.lane}-{len(self.names)}"
        node = lane_node(name, self.lane, inventory)
        node["metadata"]["labels"] |= {
            f"nvidia.com/{key.replace('_', '.')}": value for key, value in labels.items()
        }
        moment = "2026-01-01T00:00:00Z"
        ready = {"type": "Ready", "status": "True", "reason": "Simulated", "message": "simulated"}
        times = {"lastHeartbeatTime": moment, "lastTransitionTime": moment}
        status = {"status": {**node.pop("status"), "conditions": [{**ready, **times}]}}
        self.cluster.kubectl("create", "-f", "-", input_text=json.dumps(node))
        self.names.append(name)
        self.cluster.kubectl(
            "patch", "node", name, "--subresource=status", "--type=merge", "-p", json.dumps(status)
        )
        return name

    def remove(self, *names: str) -> None:
        self.cluster.kubectl("delete", "node", *names, "--ignore-not-found", "--wait=false")


@pytest.fixture
def nodes(workspace: Workspace) -> Iterator[Nodes]:
    nodes = Nodes(workspace.cluster, workspace.namespace)
    yield nodes
    if nodes.names:
        nodes.remove(*nodes.names)


def test_a_gpu_that_the_catalog_does_not_have(workspace: Workspace, nodes: Nodes) -> None:
    nodes.add(gpu_product="NVIDIA-Z9000")
    workspace.deploy(hardware=nodes.hardware)
    assert "NVIDIA-Z9000" in workspace.wait_condition("Planned", "False", "UnknownGPU")


def test_gpus_of_which_nothing_is_known(workspace: Workspace, nodes: Nodes) -> None:
    nodes.add("gpus-without-labels")
    workspace.deploy(hardware=nodes.hardware)
    workspace.wait_condition("Planned", "False", "UnknownGPU")


def test_a_node_that_vanishes_while_the_model_is_read(workspace: Workspace, nodes: Nodes) -> None:
    name = nodes.add()
    source = workspace.model()
    workspace.stack.set_hub_fault(workspace.repository(), kind="server_error")
    workspace.deploy(source=source, hardware=nodes.hardware)
    workspace.wait_condition("Accepted", "False", "HubUnreachable")
    nodes.remove(name)
    workspace.stack.set_hub_fault(workspace.repository())
    workspace.wait_condition("Planned", "False", "NoMatchingGPU")
    assert workspace.get("deployments", "llm") is None
    nodes.add()
    workspace.wait_condition("Planned", "True", "Fits")


def test_a_node_that_vanishes_with_its_pod(workspace: Workspace, nodes: Nodes) -> None:
    """The plan in force has no place any more: it is said, and another node is taken when there is one."""
    name = nodes.add()
    workspace.deploy(hardware=nodes.hardware)
    (pod,) = workspace.wait(
        "a pod on the node", lambda: [pod for pod in workspace.pods() if pod["spec"].get("nodeName") == name]
    )
    nodes.remove(name)
    # The pod garbage collector does this too, a minute after the node has gone.
    workspace.kubectl("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")
    workspace.wait_condition("Planned", "False", "PlanNoLongerFits")
    nodes.add("1x-a10g")
    workspace.wait_condition("Planned", "True", "Fits")
    assert workspace.status()["plan"]["gpus"] == "1x NVIDIA-A10G"


def test_a_node_that_is_cordoned(workspace: Workspace, nodes: Nodes) -> None:
    name = nodes.add()
    workspace.cluster.kubectl("cordon", name)
    workspace.deploy(hardware=nodes.hardware)
    assert name in workspace.wait_condition("Planned", "False", "NodesUnschedulable")
    workspace.cluster.kubectl("uncordon", name)
    workspace.wait_condition("Planned", "True", "Fits")


def test_gpus_that_a_foreign_pod_holds_are_not_planned_with(workspace: Workspace) -> None:
    one: Json = {"nvidia.com/gpu": "1"}
    container = {"name": "hold", "image": "registry.k8s.io/pause:3", "resources": {"limits": one}}
    toleration = {"key": "nvidia.com/gpu", "operator": "Exists"}
    spec = {"containers": [container], "tolerations": [toleration], "terminationGracePeriodSeconds": 0}
    pod: Json = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "holder"}}
    workspace.apply({**pod, "spec": {**spec, **workspace.hardware}})
    workspace.wait(
        "the foreign pod's place", lambda: workspace.need("pods", "holder")["spec"].get("nodeName")
    )
    workspace.deploy(parallelism={"tensor": 4})
    assert "4x NVIDIA-L4" in workspace.wait_condition("Planned", "False", "InsufficientGPUs")
    assert workspace.rendered() == []
    workspace.kubectl("delete", "pod", "holder")
    workspace.wait_ready()


def test_a_quota_that_is_too_small(workspace: Workspace) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"}}
    workspace.apply({**quota, "spec": {"hard": {"requests.nvidia.com/gpu": "1"}}})
    workspace.wait(
        "the quota to count", lambda: (workspace.get("resourcequotas", "small") or {}).get("status")
    )
    workspace.deploy(parallelism={"tensor": 2})
    message = workspace.wait_condition("Planned", "False", "QuotaExceeded")
    assert "small" in message
    workspace.apply({**quota, "spec": {"hard": {"requests.nvidia.com/gpu": "2"}}})
    workspace.wait_ready()


def test_of_two_that_want_the_last_gpus_exactly_one_gets_them(workspace: Workspace) -> None:
    names = ("first", "second")
    workspace.apply(*(workspace.manifest(name, parallelism={"tensor": 4}) for name in names))

    def verdicts() -> dict[str, str] | None:
        found = {name: workspace.condition("Planned", name)[0] for name in names}
        return found if set(found.values()) <= {"True", "False"} else None

    found = workspace.wait("two verdicts", verdicts) or {}
    assert sorted(found.values()) == ["False", "True"]
    (winner,) = (name for name in names if found[name] == "True")
    (loser,) = set(names) - {winner}
    status, reason, message = workspace.condition("Planned", loser)
    assert status == "False"
    assert winner in message if reason == "GPUsGrantedElsewhere" else reason == "InsufficientGPUs"
    workspace.wait_ready(winner)
    assert workspace.get("deployments", loser) is None
    workspace.kubectl("delete", "llmd", winner, "--wait=false")
    workspace.wait_ready(loser)


def test_a_name_that_a_foreign_deployment_has_is_left_alone(workspace: Workspace) -> None:
    workspace.kubectl("create", "deployment", "llm", "--image=busybox:1", "--replicas=0")
    workspace.deploy()
    assert "Deployment llm" in workspace.wait_condition("Accepted", "False", "NameTaken")
    fields = workspace.need("deployments")["metadata"]["managedFields"]
    assert "stowage" not in {entry["manager"] for entry in fields}
    assert workspace.rendered() == []
    workspace.kubectl("delete", "deployment", "llm")
    workspace.wait_ready()
