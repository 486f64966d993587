"""From `kubectl apply` to served tokens and to the end, with the stand-in engine on simulated GPUs."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from e2e.stack.lanes import LANE_LABEL
from tests.e2e.operations import Operations
from tests.e2e.workspace import Json, Workspace

POD_MONITORS = "podmonitors.monitoring.coreos.com"


def test_the_minimal_manifest_serves_through_its_service(workspace: Workspace) -> None:
    # It may go anywhere, also to a node that another test left and nobody runs pods on.
    workspace.kubectl("delete", "nodes", "-l", f"nvidia.com/gpu.product,!{LANE_LABEL}", "--wait=false")
    manifest = workspace.manifest()
    manifest["spec"] = {"model": manifest["spec"]["model"]}
    workspace.apply(manifest)
    workspace.kubectl("wait", "--for=condition=Ready", "llmd/llm", "--timeout=200s", timeout_seconds=240.0)
    assert workspace.condition("Ready")[:2] == ("True", "Serving")
    assert workspace.ask()["usage"]["completion_tokens"] == 4

    kinds = [name.partition("/")[0] for name in workspace.rendered()]
    assert kinds == ["configmaps", "deployments", "poddisruptionbudgets", "pods", "replicasets", "services"]
    workspace.wait("the engine's figures", lambda: "engine" in workspace.status())
    status = workspace.status()
    assert status["plan"]["gpus"] == "1x NVIDIA-L4"
    assert len(status["plan"]["modelCommit"]) == 40
    assert status["engine"]["kind"] == "simulated"
    assert "figures are simulated" in status["engine"]["summary"]


def test_mode_plan_explains_and_launches_nothing(desk: Workspace) -> None:
    seventy, eight = "hf://meta-llama/Llama-3.1-70B-Instruct", "hf://meta-llama/Llama-3.1-8B-Instruct"
    desk.deploy("large", source=seventy, mode="Plan", hardware={"gpus": ["NVIDIA-L4"]})
    desk.deploy("small", source=eight, mode="Plan")
    assert "NVIDIA-L4" in desk.wait_condition("Planned", "False", "InsufficientMemory", "large")
    assert any("Would fit" in note for note in desk.status("large")["plan"]["notes"])
    desk.wait_condition("Planned", "True", "Fits", "small")
    assert desk.condition("Ready", "small")[:2] == ("False", "PlanOnly")
    assert desk.rendered() == []


def test_deletion_lets_requests_finish_and_leaves_nothing(workspace: Workspace) -> None:
    workspace.serve(source=workspace.model(tpot_seconds=0.5))
    answers: list[Json] = []
    # It lasts longer than the pod's pause before it is asked to stop.
    asking = threading.Thread(target=lambda: answers.append(workspace.ask(tokens=30)))
    asking.start()
    workspace.wait("the request to run", lambda: _running_requests(workspace) == 1)
    workspace.kubectl("delete", "llmd", "llm", "--wait=false")
    asking.join(timeout=180.0)
    assert [answer["usage"]["completion_tokens"] for answer in answers] == [30]
    workspace.wait_gone()


def _running_requests(workspace: Workspace) -> int:
    """How many requests the engine works on, from its own metrics."""
    (pod,) = workspace.pods()
    text = workspace.fetch(pod["status"]["podIP"], 8000, "/metrics")
    samples = [line for line in text.splitlines() if line.startswith("vllm:num_requests_running")]
    return int(float(samples[0].rsplit(" ", 1)[1])) if samples else 0


@pytest.fixture
def without_pod_monitors(workspace: Workspace) -> Iterator[None]:
    """The kind PodMonitor, which a test installs, is gone afterwards."""
    yield
    workspace.cluster.kubectl("delete", "crd", POD_MONITORS, "--ignore-not-found")


@pytest.mark.usefixtures("without_pod_monitors")
def test_a_pod_monitor_appears_once_its_kind_is_installed(
    workspace: Workspace, operations: Operations
) -> None:
    workspace.serve()
    before = workspace.pod_uids()
    plural, _, group = POD_MONITORS.partition(".")
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    names = {"plural": plural, "singular": "podmonitor", "kind": "PodMonitor"}
    crd: Json = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    spec = {"group": group, "scope": "Namespaced", "names": names, "versions": [version]}
    workspace.cluster.apply({**crd, "metadata": {"name": POD_MONITORS}, "spec": spec})
    monitor = workspace.wait("the PodMonitor", lambda: workspace.get("podmonitors", "llm")) or {}
    assert monitor["spec"]["selector"]["matchLabels"]["stowage.dev/name"] == "llm"
    assert workspace.pod_uids() == before
    assert operations.operator.is_running


def test_an_idle_object_costs_no_write(workspace: Workspace, operations: Operations) -> None:
    """Over many looks: this operator's intervals are seconds instead of minutes."""
    workspace.serve(replicas=2)
    operator = operations.operator
    plurals = ("llmdeployments", "deployments", "services", "configmaps", "poddisruptionbudgets")

    def versions() -> dict[str, str]:
        return {
            f"{plural}/{item['metadata']['name']}": item["metadata"]["resourceVersion"]
            for plural in plurals
            for item in workspace.reader.items(plural, workspace.namespace)
        }

    def after_looks(count: int) -> tuple[int, dict[str, str]]:
        looks = operator.reconciliations()
        workspace.wait(f"{count} looks", lambda: operator.reconciliations() >= looks + count)
        return operator.writes(), versions()

    def quiet() -> bool:
        return (operator.writes(), versions()) == after_looks(5)

    # The last writes of the start may still be on their way, as may be those about objects that other tests left.
    workspace.wait("the start to be over", quiet)
    before = (operator.writes(), versions())
    assert after_looks(20) == before, workspace.explain()
