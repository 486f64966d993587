"""The operator as a process: rights, election, missing CRD, stops and crashes, on the real API server."""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from e2e.controlplane.cluster import Cluster
from e2e.controlplane.control_plane import ControlPlane
from e2e.controlplane.fixtures import Kubectl
from stowage.api.conditions import rfc3339
from tests.e2e.waiting import wait_until
from tests.feed.fake_agent import GIB, fake_agent, start_of
from tests.feed.operator_child import Operator, start_operator, wait_at_work
from tests.feed.pod_monitors import PodMonitors
from tests.feed.shipped_files import CRD, CRD_NAME
from tests.kube.objects import node

pytestmark = pytest.mark.cluster

FAST_LEASE = ("--lease-duration=4", "--renew-deadline=3", "--retry-period=1")
SMALL_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "vocab_size": 1024,
    "max_position_embeddings": 2048,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "torch_dtype": "bfloat16",
}

Start = Callable[..., Operator]


@pytest.fixture
def start(account: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts operators; each test has a Lease of its own, and what still runs at its end is killed."""
    running: list[Operator] = []
    lease = f"test-{secrets.token_hex(4)}"

    def begin(*flags: str) -> Operator:
        operator = start_operator(account, tmp_path / f"operator-{len(running)}.log", lease, *flags)
        running.append(operator)
        return operator

    yield begin
    for operator in running:
        operator.kill()


@pytest.fixture
def gpu_node(cluster: Cluster, namespace: str) -> Iterator[str]:
    """One simulated node with eight H100s, for this test only: its name is also the value of its label."""
    raw = node(f"gpu-{namespace}")
    del raw["metadata"]["uid"], raw["metadata"]["resourceVersion"]
    raw["metadata"]["labels"]["test"] = namespace
    status = {"status": {**raw["status"], "conditions": [_ready()]}}
    cluster.kubectl("apply", "-f", "-", input_text=json.dumps(raw))
    name = raw["metadata"]["name"]
    cluster.kubectl("patch", "node", name, "--subresource=status", "--type=merge", "-p", json.dumps(status))
    yield name
    cluster.kubectl("delete", "node", name, "--wait=false")


@contextlib.contextmanager
def small_node(cluster: Cluster, namespace: str) -> Iterator[str]:
    """A node with one L4 joins, and goes in the end."""
    raw = node(f"small-{namespace}", gpus=1)
    del raw["metadata"]["uid"], raw["metadata"]["resourceVersion"]
    raw["metadata"]["labels"] |= {
        "test": namespace,
        "nvidia.com/gpu.product": "NVIDIA-L4",
        "nvidia.com/gpu.memory": "23034",
        "nvidia.com/gpu.count": "1",
        "nvidia.com/gpu.compute.major": "8",
        "nvidia.com/gpu.compute.minor": "9",
    }
    cluster.kubectl("apply", "-f", "-", input_text=json.dumps(raw))
    status = {"status": {**raw["status"], "conditions": [_ready()]}}
    name = raw["metadata"]["name"]
    cluster.kubectl("patch", "node", name, "--subresource=status", "--type=merge", "-p", json.dumps(status))
    try:
        yield name
    finally:
        cluster.kubectl("delete", "node", name, "--wait=false")


def _beat(cluster: Cluster, *nodes: str) -> None:
    """Nobody renews these nodes: without a sign of life the control plane takes them for lost within a minute."""
    for name in nodes:
        patch = json.dumps({"status": {"conditions": [_ready(rfc3339(datetime.now(UTC)))]}})
        cluster.kubectl("patch", "node", name, "--subresource=status", "--type=strategic", "-p", patch)


def _ready(moment: str = "2026-01-01T00:00:00Z") -> dict[str, str]:
    times = {"lastHeartbeatTime": moment, "lastTransitionTime": moment}
    return {"type": "Ready", "status": "True", "reason": "Simulated", "message": "simulated", **times}


def make_model(cluster: Cluster, namespace: str) -> None:
    data = {"config.json": json.dumps(SMALL_CONFIG)}
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "tiny"}, "data": data}
    cluster.apply(config_map, namespace=namespace)


def make_llm(cluster: Cluster, namespace: str, name: str = "tiny", **spec: Any) -> None:
    model = {"source": "hf://org/tiny", "revision": "0123456789" * 4, "configRef": {"configMap": "tiny"}}
    hardware = {"nodeSelector": {"test": namespace}}
    resource = {
        "apiVersion": "stowage.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": name},
        "spec": {"model": model, "hardware": hardware, **spec},
    }
    cluster.apply(resource, namespace=namespace)


def condition(cluster: Cluster, namespace: str, kind: str, name: str = "tiny") -> tuple[str, str]:
    status = cluster.get("llmd", name, "-n", namespace).get("status") or {}
    found = [item for item in status.get("conditions") or () if item["type"] == kind]
    return (found[0]["status"], found[0]["reason"]) if found else ("", "")


def exists(kubectl: Kubectl, namespace: str, what: str) -> bool:
    return kubectl("get", what, "-n", namespace, check=False).returncode == 0


@pytest.mark.parametrize(
    ("verb", "resource", "allowed"),
    [
        pytest.param("get", "secrets", False, id="no Secrets are read"),
        pytest.param("list", "secrets", False, id="no Secrets are listed"),
        pytest.param("patch", "llmdeployments.stowage.dev", False, id="the spec belongs to the user"),
        pytest.param("patch", "llmdeployments.stowage.dev/status", True, id="the status is the operator's"),
        pytest.param("list", "nodes", True, id="nodes are read"),
        pytest.param("patch", "nodes", False, id="nodes are not written"),
        pytest.param("patch", "deployments.apps", True, id="Deployments are written"),
        pytest.param("create", "customresourcedefinitions", False, id="CRDs are not its business"),
        pytest.param("create", "pods/exec", False, id="it enters no pod"),
    ],
)
def test_shipped_rights(shipped: None, kubectl: Kubectl, verb: str, resource: str, allowed: bool) -> None:
    who = "--as=system:serviceaccount:stowage-system:stowage"
    kind, _, subresource = resource.partition("/")
    asked = ("auth", "can-i", verb, kind, f"--subresource={subresource}", who, "--all-namespaces")
    answer = kubectl(*asked, check=False).stdout.strip()
    assert answer == ("yes" if allowed else "no")


def test_it_starts_with_its_own_rights_and_a_signal_ends_it_and_frees_the_lease(
    start: Start, kubectl: Kubectl
) -> None:
    operator = start()
    wait_at_work(operator)
    wait_until(lambda: operator.is_ready, "ready")
    assert operator.probe("/healthz") == (200, "ok\n")
    assert operator.metric("leader_election_master_status") == 1
    assert operator.program.stop() == 0
    lease = json.loads(
        kubectl("get", "lease", operator.program.lease, "-n", "stowage-system", "-o", "json").stdout
    )
    assert lease["spec"].get("holderIdentity", "") == ""


def test_a_standby_is_ready_and_takes_over_after_a_crash(start: Start) -> None:
    first = start(*FAST_LEASE)
    wait_at_work(first)
    second = start(*FAST_LEASE)
    wait_until(lambda: second.is_ready, "the standby is ready")
    assert not second.is_at_work
    assert second.metric("leader_election_master_status") == 0
    first.kill()
    wait_at_work(second)


def test_a_lost_lease_ends_the_process(start: Start, kubectl: Kubectl) -> None:
    operator = start(*FAST_LEASE)
    wait_at_work(operator)
    patch = '{"spec":{"holderIdentity":"thief","leaseDurationSeconds":3600}}'
    kubectl("patch", "lease", operator.program.lease, "-n", "stowage-system", "--type=merge", "-p", patch)
    assert operator.program.exit_code(20.0) == 1
    assert "held by thief" in operator.output


def test_a_missing_crd_is_said_once_and_waited_for_and_its_removal_ends_the_process(
    start: Start, cluster: Cluster, kubectl: Kubectl
) -> None:
    kubectl("delete", CRD_NAME)
    try:
        operator = start()
        wait_until(lambda: "is not installed" in operator.output, "the sentence about the CRD")
        wait_until(lambda: operator.probe("/readyz")[0] == 503, "not ready")
        assert operator.probe("/healthz")[0] == 200
        assert "CustomResourceDefinition" in operator.probe("/readyz")[1]
        cluster.kubectl("apply", "-f", str(CRD))
        wait_at_work(operator)
        wait_until(lambda: operator.is_ready, "ready")
        assert operator.output.count("is not installed") == 1
        kubectl("delete", CRD_NAME)
        assert operator.program.exit_code(30.0) == 1
        assert "CustomResourceDefinition of LLMDeployment was deleted" in operator.output
    finally:
        cluster.kubectl("apply", "-f", str(CRD))
        cluster.kubectl("wait", "--for=condition=Established", CRD_NAME, "--timeout=30s")


def test_a_bad_setting_is_one_sentence_and_code_2(start: Start) -> None:
    operator = start("--workers=0")
    assert operator.program.exit_code(30.0) == 2
    assert operator.output.strip() == "Setting workers is 0; write at least 1."


def test_it_converges_then_writes_nothing_puts_back_and_survives_a_crash(
    start: Start, cluster: Cluster, kubectl: Kubectl, namespace: str, gpu_node: str
) -> None:
    make_model(cluster, namespace)
    operator = start(f"--namespaces={namespace}")
    wait_at_work(operator)
    make_llm(cluster, namespace)
    wait_until(lambda: condition(cluster, namespace, "Planned") == ("True", "Fits"), "planned")
    for what in ("deployment/tiny", "service/tiny", "pdb/tiny"):
        wait_until(lambda what=what: exists(kubectl, namespace, what), what)  # type: ignore[misc]

    wait_until(lambda: _is_quiet(operator), "no more writes")
    written = operator.metric('rest_client_requests_total{code="200",host')
    uid = cluster.get("deployment", "tiny", "-n", namespace)["metadata"]["uid"]
    assert written > 0

    kubectl("delete", "service/tiny", "-n", namespace)
    wait_until(lambda: exists(kubectl, namespace, "service/tiny"), "the Service is put back")
    kubectl("label", "deployment/tiny", "-n", namespace, "app.kubernetes.io/managed-by-")
    wait_until(lambda: _managed_by(cluster, namespace) == "stowage", "the label is put back")
    # A list whose key is the port: what is there now and what is wanted cannot both be.
    edit = '[{"op":"replace","path":"/spec/ports/0/port","value":9000}]'
    kubectl("patch", "service/tiny", "-n", namespace, "--type=json", "-p", edit)
    wait_until(lambda: _ports(cluster, namespace) == [8000], "the port is put back")
    wait_until(lambda: condition(cluster, namespace, "Planned") == ("True", "Fits"), "no refusal remains")

    operator.kill()
    kubectl("delete", "pdb/tiny", "-n", namespace)
    again = start(f"--namespaces={namespace}")
    wait_at_work(again)
    wait_until(lambda: exists(kubectl, namespace, "pdb/tiny"), "the PodDisruptionBudget is put back")
    assert cluster.get("deployment", "tiny", "-n", namespace)["metadata"]["uid"] == uid
    assert cluster.get("deployment", "tiny", "-n", namespace)["metadata"]["generation"] == 1


def test_a_better_plan_is_shown_and_told_once_and_taken_when_it_is_asked_for(
    start: Start, cluster: Cluster, kubectl: Kubectl, namespace: str, gpu_node: str
) -> None:
    make_model(cluster, namespace)
    make_llm(cluster, namespace)
    operator = start(f"--namespaces={namespace}", "--resync-interval=2")
    wait_at_work(operator)
    wait_until(lambda: exists(kubectl, namespace, "deployment/tiny"), "served")
    before = cluster.get("deployment", "tiny", "-n", namespace)["spec"]

    with small_node(cluster, namespace) as small:
        wait_until(lambda: _better(cluster, namespace) is not None, "the better plan is shown")
        shown = _better(cluster, namespace)
        assert shown is not None
        assert shown["plan"].startswith("1x NVIDIA-L4")
        wait_until(lambda: _told(cluster, namespace) == 1, "an event")
        _beat(cluster, gpu_node, small)
        wait_until(lambda: _is_quiet(operator), "no more writes, though it is looked at every two seconds")
        assert cluster.get("deployment", "tiny", "-n", namespace)["spec"] == before

        operator.stop()
        _beat(cluster, gpu_node, small)
        again = start(f"--namespaces={namespace}", "--resync-interval=2")
        wait_at_work(again)
        _beat(cluster, gpu_node, small)
        wait_until(lambda: _is_quiet(again), "no writes after a restart either")
        assert _better(cluster, namespace) == shown
        assert _told(cluster, namespace) == 1

        patch = json.dumps({"spec": {"replan": shown["replan"]}})
        kubectl("patch", "llmd/tiny", "-n", namespace, "--type=merge", "-p", patch)
        wait_until(lambda: _gpus(cluster, namespace) == "1x NVIDIA-L4", "the better plan is taken")
        assert _better(cluster, namespace) is None


def _better(cluster: Cluster, namespace: str) -> dict[str, Any] | None:
    plan = (cluster.get("llmd", "tiny", "-n", namespace).get("status") or {}).get("plan") or {}
    found: dict[str, Any] | None = plan.get("better")
    return found


def _gpus(cluster: Cluster, namespace: str) -> str:
    return str(cluster.get("llmd", "tiny", "-n", namespace)["status"]["plan"].get("gpus"))


def _told(cluster: Cluster, namespace: str) -> int:
    events = cluster.get("events.events.k8s.io", "-n", namespace)["items"]
    return sum(event["reason"] == "BetterPlanFound" for event in events)


def test_what_a_start_measured_outlives_the_pod_and_the_operator_and_teaches_others(
    start: Start, cluster: Cluster, kubectl: Kubectl, namespace: str, gpu_node: str
) -> None:
    make_model(cluster, namespace)
    pins: dict[str, Any] = {"engine": {"maxNumSeqs": 16, "maxNumBatchedTokens": 2048}}
    make_llm(cluster, namespace, **pins)
    flags = (f"--namespaces={namespace}", "--scrape-interval=0.5", "--start-scrape-interval=0.5")
    operator = start(*flags)
    wait_at_work(operator)
    wait_until(lambda: _pod_on(cluster, namespace, gpu_node), "the scheduler")
    live = cluster.get("deployment", "tiny", "-n", namespace)
    with fake_agent(start_of(live, GIB // 4)) as address:
        _run_pod(cluster, namespace, _pod_on(cluster, namespace, gpu_node), address)
        wait_until(lambda: _start_ups(cluster, namespace), "what was measured is written down")
        _beat(cluster, gpu_node)
        wait_until(lambda: _is_quiet(operator), "no more writes")
    (measured,) = _start_ups(cluster, namespace)
    assert cluster.get("deployment", "tiny", "-n", namespace)["spec"] == live["spec"]
    operator.stop()

    _beat(cluster, gpu_node)
    again = start(*flags)
    wait_at_work(again)
    make_llm(cluster, namespace, "other", **pins)
    wait_until(lambda: condition(cluster, namespace, "Planned", "other") == ("True", "Fits"), "planned")
    plan = cluster.get("llmd", "other", "-n", namespace)["status"]["plan"]
    product = "NVIDIA-H100-80GB-HBM3"
    assert plan["calibrated"] == f"1 start-up of LlamaForCausalLM on {product} (tp1) with vLLM 0.32"
    assert _start_ups(cluster, namespace) == [measured]


def _start_ups(cluster: Cluster, namespace: str) -> list[Any]:
    annotations = cluster.get("deployment", "tiny", "-n", namespace)["metadata"]["annotations"]
    found: list[Any] = json.loads(annotations.get("stowage.dev/start-ups", "[]"))
    return found


def _pod_on(cluster: Cluster, namespace: str, node_name: str) -> str:
    pods = cluster.get("pods", "-n", namespace, "-l", "stowage.dev/name=tiny")["items"]
    bound = [pod["metadata"]["name"] for pod in pods if pod["spec"].get("nodeName") == node_name]
    return bound[0] if bound else ""


def _run_pod(cluster: Cluster, namespace: str, name: str, address: str) -> None:
    """What a kubelet would say of a pod that serves."""
    engine = {"name": "engine", "ready": True, "restartCount": 0, "image": "vllm", "imageID": ""}
    status = {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        "containerStatuses": [{**engine, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}],
    }
    patch = json.dumps({"status": status})
    cluster.kubectl(
        "patch", "pod", name, "-n", namespace, "--subresource=status", "--type=merge", "-p", patch
    )


def _is_quiet(operator: Operator) -> bool:
    before = operator.writes()
    time.sleep(3.0)
    return operator.writes() == before


def _ports(cluster: Cluster, namespace: str) -> list[int]:
    return [port["port"] for port in cluster.get("service", "tiny", "-n", namespace)["spec"]["ports"]]


def _managed_by(cluster: Cluster, namespace: str) -> str | None:
    labels = cluster.get("deployment", "tiny", "-n", namespace)["metadata"]["labels"]
    return str(labels.get("app.kubernetes.io/managed-by"))


def test_an_optional_kind_is_used_and_watched_while_it_is_there(
    start: Start,
    cluster: Cluster,
    kubectl: Kubectl,
    namespace: str,
    gpu_node: str,
    pod_monitors: PodMonitors,
) -> None:
    make_model(cluster, namespace)
    make_llm(cluster, namespace)
    operator = start(f"--namespaces={namespace}")
    wait_at_work(operator)
    wait_until(lambda: exists(kubectl, namespace, "deployment/tiny"), "served")

    pod_monitors.install()
    wait_until(
        lambda: exists(kubectl, namespace, "podmonitor/tiny"), "the PodMonitor of a kind that came late"
    )
    wait_until(lambda: _is_quiet(operator), "no more writes")
    kubectl("delete", "podmonitor/tiny", "-n", namespace)
    wait_until(lambda: exists(kubectl, namespace, "podmonitor/tiny"), "the PodMonitor is put back", 10.0)

    pod_monitors.remove()
    wait_until(lambda: "PodMonitor is not used any more" in operator.output, "the end of the kind", 20.0)
    kubectl("delete", "service/tiny", "-n", namespace)
    wait_until(lambda: exists(kubectl, namespace, "service/tiny"), "the rest goes on")
    assert operator.is_running
    assert "Traceback" not in operator.output


def test_of_two_that_want_the_last_gpus_exactly_one_gets_them(
    start: Start, cluster: Cluster, kubectl: Kubectl, namespace: str, gpu_node: str
) -> None:
    make_model(cluster, namespace)
    wanted = {"parallelism": {"tensor": 4}, "replicas": 2}
    for name in ("one", "two"):
        make_llm(cluster, namespace, name, **wanted)
    operator = start(f"--namespaces={namespace}")
    wait_at_work(operator)
    names = ("one", "two")
    wait_until(
        lambda: all(condition(cluster, namespace, "Planned", name)[0] in ("True", "False") for name in names),
        "both have a verdict",
    )
    asked = {
        name: cluster.get("deployment", name, "-n", namespace)["spec"]["replicas"]
        for name in names
        if exists(kubectl, namespace, f"deployment/{name}")
    }
    assert sum(asked.values()) * 4 <= 8
    assert sorted(condition(cluster, namespace, "Planned", name)[0] for name in names) == ["False", "True"]


def test_a_name_that_somebody_holds_is_said_and_not_touched(
    start: Start, cluster: Cluster, kubectl: Kubectl, namespace: str, gpu_node: str
) -> None:
    make_model(cluster, namespace)
    kubectl("create", "service", "clusterip", "tiny", "-n", namespace, "--tcp=80:80")
    before = cluster.get("service", "tiny", "-n", namespace)
    make_llm(cluster, namespace)
    operator = start(f"--namespaces={namespace}")
    wait_at_work(operator)
    wait_until(lambda: condition(cluster, namespace, "Accepted") == ("False", "NameTaken"), "NameTaken")
    assert cluster.get("service", "tiny", "-n", namespace) == before
    assert not exists(kubectl, namespace, "deployment/tiny")
    kubectl("delete", "service/tiny", "-n", namespace)
    wait_until(lambda: exists(kubectl, namespace, "deployment/tiny"), "served once the name is free")
    wait_until(lambda: condition(cluster, namespace, "Accepted") == ("True", "Valid"), "accepted")


def test_it_outlives_a_restart_of_the_api_server(
    start: Start,
    control_plane: ControlPlane,
    cluster: Cluster,
    kubectl: Kubectl,
    namespace: str,
    gpu_node: str,
) -> None:
    make_model(cluster, namespace)
    operator = start(f"--namespaces={namespace}", "--renew-deadline=60", "--lease-duration=90")
    wait_at_work(operator)
    control_plane.kill("kube-apiserver")
    control_plane.restart("kube-apiserver")
    control_plane.wait_ready()
    make_llm(cluster, namespace)
    wait_until(lambda: exists(kubectl, namespace, "deployment/tiny"), "reconciled after the restart", 90.0)
    assert operator.is_running
