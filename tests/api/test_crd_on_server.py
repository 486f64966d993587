"""The real API server takes the CRD, fills defaults, explains fields, guards transitions and scales."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.controlplane.cluster import Cluster, KubectlError
from stowage.api.conditions import ConditionType, Reason, condition
from stowage.api.crd import CRD_NAME
from stowage.api.v1alpha1 import LLMDeployment, LLMDeploymentStatus, parse_deployment
from tests.api.bad_objects import merged
from tests.api.sample_status import NOW, full_status

pytestmark = pytest.mark.cluster

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.yaml"))


def manifest(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "stowage.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": name},
        "spec": merged({"model": {"source": "hf://Qwen/Qwen3-8B"}}, spec),
    }


def write_status(cluster: Cluster, namespace: str, name: str, status: LLMDeploymentStatus) -> None:
    body = {
        "apiVersion": "stowage.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": name},
        "status": status.to_dict(),
    }
    arguments = ("apply", "--server-side", "--subresource=status", "--field-manager=stowage", "-n", namespace)
    cluster.kubectl(*arguments, "-f", "-", input_text=json.dumps(body))


def test_the_crd_is_established_and_structural(cluster_with_crd: Cluster) -> None:
    conditions = cluster_with_crd.get("crd", CRD_NAME)["status"]["conditions"]
    states = {entry["type"]: entry["status"] for entry in conditions}
    assert states["Established"] == "True"
    assert states["NamesAccepted"] == "True"
    assert "NonStructuralSchema" not in states


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_accepted_by_server_and_parser(
    cluster_with_crd: Cluster, namespace: str, path: Path
) -> None:
    answer = cluster_with_crd.kubectl("create", "--dry-run=server", "-n", namespace, "-f", str(path))
    assert "created (server dry run)" in answer.stdout
    assert isinstance(parse_deployment(yaml.safe_load(path.read_text())), LLMDeployment)


def test_the_server_fills_the_same_defaults_as_the_parser(cluster_with_crd: Cluster, namespace: str) -> None:
    document = manifest("defaults")
    cluster_with_crd.apply(document, namespace=namespace)
    stored = cluster_with_crd.get("llmd", "defaults", "-n", namespace)
    assert stored["spec"] == {
        "mode": "Serve",
        "model": {"source": "hf://Qwen/Qwen3-8B"},
        "objectives": {"percentile": 95, "priority": "Cost"},
        "precision": {"policy": "Checkpoint", "kvCache": "Auto"},
        "parallelism": {"expertParallel": "Auto"},
        "hardware": {"class": "GPU"},
        "scaling": {"mode": "External"},
        "replicas": 1,
        "rollout": {"strategy": "Auto"},
    }
    from_server, from_file = parse_deployment(stored), parse_deployment(document)
    assert isinstance(from_server, LLMDeployment)
    assert isinstance(from_file, LLMDeployment)
    assert from_server.spec == from_file.spec


def test_a_serving_deployment_cannot_become_a_plan(cluster_with_crd: Cluster, namespace: str) -> None:
    cluster_with_crd.apply(manifest("transition", mode="Plan"), namespace=namespace)
    cluster_with_crd.apply(manifest("transition", mode="Serve"), namespace=namespace)
    with pytest.raises(KubectlError, match="cannot go from Serve to Plan"):
        cluster_with_crd.apply(manifest("transition", mode="Plan"), namespace=namespace)
    cluster_with_crd.apply(manifest("transition", replicas=0), namespace=namespace)


def test_the_scale_subresource_reads_and_writes(cluster_with_crd: Cluster, namespace: str) -> None:
    cluster_with_crd.apply(manifest("scaled"), namespace=namespace)
    selector = "stowage.dev/name=scaled,stowage.dev/leader=true"
    write_status(
        cluster_with_crd,
        namespace,
        "scaled",
        LLMDeploymentStatus(replicas=1, ready_replicas=1, selector=selector),
    )
    cluster_with_crd.kubectl("scale", "llmd/scaled", "--replicas=3", "-n", namespace)
    scale = json.loads(
        cluster_with_crd.kubectl(
            "get", "--raw", f"/apis/stowage.dev/v1alpha1/namespaces/{namespace}/llmdeployments/scaled/scale"
        ).stdout
    )
    assert scale["spec"]["replicas"] == 3
    assert scale["status"] == {"replicas": 1, "selector": selector}
    with pytest.raises(KubectlError, match="less than or equal to 1000"):
        cluster_with_crd.kubectl("scale", "llmd/scaled", "--replicas=2000", "-n", namespace)


def test_a_full_status_is_stored_whole_and_shown_in_columns(
    cluster_with_crd: Cluster, namespace: str
) -> None:
    cluster_with_crd.apply(manifest("shown"), namespace=namespace)
    status = full_status()
    write_status(cluster_with_crd, namespace, "shown", status)
    stored = cluster_with_crd.get("llmd", "shown", "-n", namespace)["status"]
    assert LLMDeploymentStatus.model_validate(stored) == status
    head, row = cluster_with_crd.kubectl("get", "llmd", "-n", namespace).stdout.splitlines()
    assert head.split() == [
        "NAME",
        "MODEL",
        "READY",
        "REASON",
        "REPLICAS",
        "GPUS",
        "PARALLEL",
        "PRECISION",
        "KV%",
        "AGE",
    ]
    assert row.split()[1:9] == [
        "hf://Qwen/Qwen3-8B", "True", "Serving", "2/2", "4x", "NVIDIA-H100-80GB-HBM3", "tp4", "bf16"
    ]  # fmt: skip
    wide = cluster_with_crd.kubectl("get", "llmd", "-n", namespace, "-o", "wide").stdout
    assert "MemoryBandwidth" in wide
    assert "2 replicas are serving." in wide
    assert "shown" in cluster_with_crd.kubectl("get", "llm", "-n", namespace).stdout


def test_status_texts_beyond_the_bounds_are_shortened_so_that_the_write_succeeds(
    cluster_with_crd: Cluster, namespace: str
) -> None:
    cluster_with_crd.apply(manifest("long"), namespace=namespace)
    cause = condition(ConditionType.ACCEPTED, False, Reason.INVALID_SPEC, "é" * 5000, generation=1, now=NOW)
    write_status(cluster_with_crd, namespace, "long", LLMDeploymentStatus(conditions=(cause,)))
    stored = cluster_with_crd.get("llmd", "long", "-n", namespace)["status"]["conditions"][0]
    assert stored["message"].endswith("…")
    assert len(stored["message"]) == 2048


def test_wait_for_ready_returns_when_the_condition_is_true(cluster_with_crd: Cluster, namespace: str) -> None:
    cluster_with_crd.apply(manifest("waited"), namespace=namespace)
    write_status(cluster_with_crd, namespace, "waited", full_status())
    cluster_with_crd.kubectl("wait", "--for=condition=Ready", "llmd/waited", "-n", namespace, "--timeout=10s")


@pytest.mark.parametrize(
    ("field", "words"),
    [
        pytest.param("llmd.spec", "The hardware that the plan may use.", id="the spec"),
        pytest.param(
            "llmd.spec.model", "Secret with the Hub token for a gated or private model.", id="the model"
        ),
        pytest.param("llmd.spec.engine.kvCacheMemory", "Pin of the KV cache's size per GPU", id="a pin"),
        pytest.param("llmd.status.plan", "Predicted memory of the tightest GPU of a replica.", id="the plan"),
    ],
)
def test_explain_is_readable(cluster_with_crd: Cluster, field: str, words: str) -> None:
    answer = cluster_with_crd.kubectl("explain", field).stdout
    assert words in " ".join(answer.split())
