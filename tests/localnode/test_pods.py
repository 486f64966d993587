from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from e2e.controlplane.cluster import Cluster
from e2e.controlplane.inside_http import InsideConnection
from e2e.localnode.handle import LocalNodeProcess
from tests.localnode.conftest import CPU_NODE, TAINT

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_node")]
PATIENCE_SECONDS = 40.0


class Bench:
    """One namespace of the cluster, and what a test does there."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace

    def run(self, *objects: dict[str, Any]) -> None:
        self.cluster.apply(*objects, namespace=self.namespace)

    def pod(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.cluster.get("pod", name, "-n", self.namespace)
        return found

    def wait(self, name: str, holds: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Wait until something holds of a pod's status; returns the pod."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not holds((pod := self.pod(name))["status"]):
            assert time.monotonic() < deadline, json.dumps(pod["status"], indent=1)
            time.sleep(0.1)
        return pod

    def logs(self, *arguments: str) -> str:
        return self.cluster.kubectl("logs", "-n", self.namespace, *arguments).stdout

    def kubectl(self, *arguments: str) -> str:
        return self.cluster.kubectl(*arguments, "-n", self.namespace).stdout

    def get(self, address: str, port: int, path: str = "/") -> int:
        connection = InsideConnection(self.cluster.namespace, address, port)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        finally:
            connection.close()


@pytest.fixture
def bench(cluster: Cluster, namespace: str) -> Bench:
    return Bench(cluster, namespace)


def pod(name: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = {"automountServiceAccountToken": False, "terminationGracePeriodSeconds": 5}
    defaults["tolerations"] = [{"key": TAINT["key"], "operator": "Exists"}]
    defaults["nodeSelector"] = {"kubernetes.io/hostname": CPU_NODE}
    manifest = {"containers": [container(**entry) for entry in containers], **defaults, **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": manifest}


def container(*, script: str = "exec sleep 1000", **fields: Any) -> dict[str, Any]:
    return {"name": "main", "image": "busybox:1", "command": ["sh", "-c", script], **fields}


def state(status: dict[str, Any], kind: str, index: int = 0) -> Any:
    statuses = status.get("containerStatuses") or [{}]
    return statuses[index].get("state", {}).get(kind)


def finished(status: dict[str, Any]) -> bool:
    return status["phase"] in ("Succeeded", "Failed")


SERVER: dict[str, Any] = {
    "image": "python:3",
    "command": ["python3", "-m", "http.server", "8000", "--bind", "$(POD_IP)"],
    "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
    "ports": [{"name": "http", "containerPort": 8000}],
    "readinessProbe": {"httpGet": {"port": "http"}, "periodSeconds": 1},
}


def test_a_deployment_gets_available_and_its_service_answers_at_the_cluster_ip(bench: Bench) -> None:
    labels = {"app": "web"}
    template = pod("web", SERVER, terminationGracePeriodSeconds=0)
    spec = {"replicas": 2, "selector": {"matchLabels": labels}}
    spec["template"] = {"metadata": {"labels": labels}, "spec": template["spec"]}
    service = {"selector": labels, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}
    bench.run(
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": service},
    )
    bench.kubectl("rollout", "status", "deployment/web", "--timeout=40s")
    pods = json.loads(bench.kubectl("get", "pods", "-o", "json"))["items"]
    addresses = {entry["status"]["podIP"] for entry in pods}
    assert len(addresses) == 2
    assert [bench.get(address, 8000) for address in addresses] == [200, 200]
    if bench.cluster.namespace.isolated:
        found = json.loads(bench.kubectl("get", "service", "web", "-o", "json"))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                assert bench.get(found["spec"]["clusterIP"], 80) == 200
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.1)


def test_variables_and_volumes_of_every_kind_are_what_the_pod_says(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "claimed").mkdir()
    (tmp_path / "claimed" / "weights").write_text("from the claim")
    claim_name = f"pv-{bench.namespace}"
    bench.run(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "cm"},
            "data": {"a.txt": "configured", "B": "2"},
        },
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "sec"},
            "stringData": {"token": "hidden"},
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": claim_name},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "",
                "hostPath": {"path": str(tmp_path / "claimed")},
                "claimRef": {"namespace": bench.namespace, "name": "claim"},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "claim"},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}},
                "storageClassName": "",
                "volumeName": claim_name,
            },
        },
    )
    script = """
      cat /cm/a.txt /sec/token /model/weights /shed/one /host/made /opt/nested/new/a.txt; echo
      echo "$NAME $NODE $TOKEN $COPY $B $UNKNOWN"
      touch /dev/shm/x /shed/y; touch /cm/y 2>/dev/null || echo read-only
      ls /var/run/secrets/kubernetes.io/serviceaccount; hostname"""
    main = {
        "script": script,
        "env": [
            {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "token"}}},
            {"name": "COPY", "value": "<$(NAME)>"},
            {"name": "UNKNOWN", "value": "$(NOPE)"},
        ],
        "envFrom": [{"configMapRef": {"name": "cm"}}],
        "volumeMounts": [
            {"name": "cm", "mountPath": "/cm"},
            {"name": "cm", "mountPath": "/opt/nested/new"},
            {"name": "sec", "mountPath": "/sec"},
            {"name": "model", "mountPath": "/model", "readOnly": True},
            {"name": "work", "mountPath": "/shed"},
            {"name": "shm", "mountPath": "/dev/shm"},
            {"name": "host", "mountPath": "/host"},
        ],
    }
    init = container(
        script="echo -n one > /shed/one; echo -n made > /host/made",
        name="init",
        volumeMounts=[{"name": "work", "mountPath": "/shed"}, {"name": "host", "mountPath": "/host"}],
    )
    volumes = [
        {"name": "cm", "configMap": {"name": "cm"}},
        {"name": "sec", "secret": {"secretName": "sec"}},
        {"name": "model", "persistentVolumeClaim": {"claimName": "claim", "readOnly": True}},
        {"name": "work", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
        {"name": "host", "hostPath": {"path": str(tmp_path / "host"), "type": "DirectoryOrCreate"}},
    ]
    spec = {"initContainers": [init], "volumes": volumes, "automountServiceAccountToken": True}
    bench.run(pod("all", main, restartPolicy="Never", **spec))
    bench.wait("all", finished)
    lines = bench.logs("all", "-c", "main").splitlines()
    assert lines == [
        "configuredhiddenfrom the claimonemadeconfigured",
        f"all {CPU_NODE} hidden <all> 2 $(NOPE)",
        "read-only",
        "ca.crt",
        "namespace",
        "token",
        "all",
    ]
    assert (tmp_path / "host" / "made").read_text() == "made"
    assert not Path("/opt/nested").exists()
    bench.cluster.kubectl("delete", "pv", claim_name, "--wait=false")


def test_a_restricted_pod_runs_as_its_user_on_a_read_only_root(
    bench: Bench, local_node: LocalNodeProcess
) -> None:
    script = "id -u; touch /shed/a /tmp/b 2>&1; touch /etc/c 2>&1; grep -c CapEff:.*0000000000000000 /proc/self/status"
    main = {
        "script": script,
        "securityContext": {
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "work", "mountPath": "/shed"}],
    }
    context = {
        "runAsNonRoot": True,
        "runAsUser": 64000,
        "fsGroup": 64000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    volumes = [{"name": "work", "emptyDir": {}}]
    bench.run(pod("restricted", main, securityContext=context, volumes=volumes, restartPolicy="Never"))
    bench.wait("restricted", finished)
    said = bench.logs("restricted")
    assert said.count("Read-only file system") == 2, said
    assert said.splitlines()[0] == ("64000" if "runAsUser enforced" in local_node.description else "0")
    assert said.splitlines()[-1] == "1"


def test_a_pod_that_must_not_be_root_with_an_image_that_is_does_not_start(bench: Bench) -> None:
    bench.run(pod("root", {"securityContext": {"runAsNonRoot": True}}))
    found = bench.wait(
        "root", lambda status: state(status, "waiting") and state(status, "waiting").get("message")
    )
    assert state(found["status"], "waiting") == {
        "reason": "CreateContainerConfigError",
        "message": "container has runAsNonRoot and image will run as root",
    }


def test_init_containers_run_in_order_and_a_failing_one_is_tried_again(bench: Bench) -> None:
    mounts = [{"name": "work", "mountPath": "/shed"}]
    first = container(
        script="echo 1 >> /shed/order; test $(wc -l < /shed/order) -ge 2", name="first", volumeMounts=mounts
    )
    second = container(script="echo 2 >> /shed/order", name="second", volumeMounts=mounts)
    main = {"script": "cat /shed/order", "volumeMounts": mounts}
    spec = {"initContainers": [first, second], "volumes": [{"name": "work", "emptyDir": {}}]}
    bench.run(pod("ordered", main, restartPolicy="OnFailure", **spec))
    found = bench.wait("ordered", finished)
    assert found["status"]["phase"] == "Succeeded"
    assert bench.logs("ordered", "-c", "main").split() == ["1", "1", "2"]
    assert [entry["restartCount"] for entry in found["status"]["initContainerStatuses"]] == [1, 0]


def test_a_crashing_container_is_restarted_with_growing_waits_and_keeps_its_last_words(bench: Bench) -> None:
    main = {
        "script": "echo run; sleep 0.1; echo gone >&2; exit 3",
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    bench.run(pod("crash", main))
    found = bench.wait(
        "crash",
        lambda status: (
            (state(status, "waiting") or {}).get("reason") == "CrashLoopBackOff"
            and status["containerStatuses"][0]["restartCount"] >= 2
        ),
    )
    status = found["status"]
    assert status["phase"] == "Running"
    assert status["containerStatuses"][0]["state"]["waiting"]["message"].startswith("back-off 1s")
    last = status["containerStatuses"][0]["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"], last["message"]) == (3, "Error", "run\ngone\n")
    assert bench.logs("crash", "--previous") == "run\ngone\n"


def test_the_termination_message_and_exit_code_reach_the_status(bench: Bench) -> None:
    bench.run(
        pod(
            "message",
            {"script": 'echo -n \'{"reason": "X"}\' > /dev/termination-log; exit 9'},
            restartPolicy="Never",
        )
    )
    found = bench.wait("message", finished)
    assert found["status"]["phase"] == "Failed"
    ended = state(found["status"], "terminated")
    assert (ended["exitCode"], ended["message"]) == (9, '{"reason": "X"}')


def test_a_liveness_probe_that_fails_restarts_the_container(bench: Bench) -> None:
    check = {"exec": {"command": ["test", "!", "-e", "/tmp/sick"]}, "periodSeconds": 1}
    main = {
        "script": "trap 'exit 0' TERM; sleep 2; touch /tmp/sick; while :; do sleep 0.1; done",
        "livenessProbe": {**check, "failureThreshold": 2},
        "readinessProbe": check,
    }
    bench.run(pod("sick", main))
    bench.wait("sick", lambda status: status.get("containerStatuses", [{}])[0].get("ready"))
    bench.wait("sick", lambda status: status["containerStatuses"][0]["restartCount"])
    events = bench.kubectl("get", "events", "-o", "jsonpath={.items[*].message}")
    assert "Container main failed liveness probe, will be restarted" in events


def test_a_startup_probe_holds_the_others_back_and_tcp_probes_work(bench: Bench) -> None:
    serve = "import socket,time; time.sleep(1.5); s=socket.create_server(('0.0.0.0', 8001)); time.sleep(1000)"
    main = {
        "image": "python:3",
        "command": ["python3", "-c", serve],
        "startupProbe": {"tcpSocket": {"port": 8001}, "periodSeconds": 1, "failureThreshold": 30},
        "livenessProbe": {"tcpSocket": {"port": 8001}, "periodSeconds": 1, "failureThreshold": 1},
        "readinessProbe": {"tcpSocket": {"port": 8001}, "periodSeconds": 1},
    }
    bench.run(pod("slow", main))
    found = bench.wait("slow", lambda status: status.get("containerStatuses", [{}])[0].get("ready"))
    (status,) = found["status"]["containerStatuses"]
    assert (status["started"], status["restartCount"]) == (True, 0)


def test_deletion_runs_the_hook_then_asks_then_waits_and_leaves_nothing(bench: Bench, tmp_path: Path) -> None:
    goodbye = "echo term >> /out/log; sleep 0.3; echo end >> /out/log; exit 0"
    script = f"trap '{goodbye}' TERM; echo up >> /out/log; while :; do sleep 0.1; done"
    main = {
        "script": script,
        "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "sleep 0.2; echo hook >> /out/log"]}}},
        "volumeMounts": [{"name": "out", "mountPath": "/out"}],
    }
    bench.run(pod("polite", main, volumes=[{"name": "out", "hostPath": {"path": str(tmp_path)}}]))
    bench.wait("polite", lambda status: (tmp_path / "log").exists())
    bench.kubectl("delete", "pod", "polite", "--timeout=30s")
    assert (tmp_path / "log").read_text().split() == ["up", "hook", "term", "end"]


def test_a_container_that_ignores_the_request_is_killed_after_its_grace(
    bench: Bench, local_node: LocalNodeProcess
) -> None:
    script = "trap '' TERM; sleep 4242 & while :; do sleep 0.1; done"
    bench.run(pod("deaf", {"script": script}, terminationGracePeriodSeconds=1))
    bench.wait("deaf", lambda status: state(status, "running"))
    bench.kubectl("delete", "pod", "deaf", "--timeout=30s")
    assert not [line for line in command_lines() if "sleep\x004242" in line]


def command_lines() -> list[str]:
    lines = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                lines.append((entry / "cmdline").read_text())
            except OSError:
                continue
    return lines


def test_logs_can_be_followed_and_cut(bench: Bench) -> None:
    bench.run(
        pod("talk", {"script": "for i in 1 2 3 4 5; do echo $i; sleep 0.2; done"}, restartPolicy="Never")
    )
    bench.wait("talk", lambda status: state(status, "running") or finished(status))
    assert bench.logs("talk", "-f") == "1\n2\n3\n4\n5\n"
    assert bench.logs("talk", "--tail=2").split() == ["4", "5"]


def test_a_field_that_is_not_implemented_fails_the_pod_with_its_name(bench: Bench) -> None:
    bench.run(pod("fancy", {"lifecycle": {"postStart": {"exec": {"command": ["true"]}}}}))
    status = bench.wait("fancy", finished)["status"]
    assert (status["phase"], status["reason"]) == ("Failed", "UnsupportedByLocalNode")
    assert "spec.containers[0].lifecycle.postStart" in status["message"]


def test_an_image_that_is_not_listed_cannot_be_pulled(bench: Bench) -> None:
    bench.run(pod("nginx", {"image": "nginx:1"}))
    found = bench.wait(
        "nginx", lambda status: (state(status, "waiting") or {}).get("reason") == "ImagePullBackOff"
    )
    assert found["status"]["phase"] == "Pending"
    assert 'image "nginx:1" is not on the local node\'s list' in state(found["status"], "waiting")["message"]


def test_a_missing_secret_is_waited_for(bench: Bench) -> None:
    variable = {"name": "T", "valueFrom": {"secretKeyRef": {"name": "late", "key": "k"}}}
    bench.run(pod("waits", {"script": "echo $T", "env": [variable]}, restartPolicy="Never"))
    found = bench.wait(
        "waits", lambda status: (state(status, "waiting") or {}).get("reason") == "CreateContainerConfigError"
    )
    assert state(found["status"], "waiting")["message"] == 'secret "late" not found'
    bench.run(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "late"}, "stringData": {"k": "here"}}
    )
    bench.wait("waits", finished)
    assert bench.logs("waits") == "here\n"


def test_a_command_that_does_not_exist_is_a_start_error(bench: Bench) -> None:
    bench.run(pod("typo", {"command": ["no-such-program"]}, restartPolicy="Never"))
    ended = state(bench.wait("typo", finished)["status"], "terminated")
    assert (ended["exitCode"], ended["reason"]) == (128, "StartError")
    assert 'exec: "no-such-program": executable file not found' in ended["message"]


def test_a_deadline_ends_the_pod(bench: Bench) -> None:
    bench.run(pod("late", {}, activeDeadlineSeconds=1, terminationGracePeriodSeconds=1))
    status = bench.wait("late", finished)["status"]
    assert (status["phase"], status["reason"]) == ("Failed", "DeadlineExceeded")


GPUS = {
    "resources": {"limits": {"nvidia.com/gpu": "2"}},
    "command": ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"],
}
GPU_NODE: dict[str, Any] = {
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
    "nodeSelector": {"kubernetes.io/hostname": "gpu-l4-0"},
}


def test_a_stand_in_sees_the_simulated_gpus_that_it_was_given(bench: Bench) -> None:
    bench.run(pod("smi", {**GPUS, "image": "vllm/vllm-openai:v0.32.0"}, restartPolicy="Never", **GPU_NODE))
    found = bench.wait("smi", finished)
    assert found["spec"]["nodeName"] == "gpu-l4-0"
    assert bench.logs("smi") == "NVIDIA L4, 23034 MiB\n" * 2


def test_a_real_engine_is_not_run_on_simulated_gpus(bench: Bench) -> None:
    bench.run(
        pod("real", {**GPUS, "image": "vllm/vllm-openai-cpu:v0.32.0"}, restartPolicy="Never", **GPU_NODE)
    )
    status = bench.wait("real", finished)["status"]
    assert status["reason"] == "UnsupportedByLocalNode"
    assert "is a real engine: it needs a stand-in" in status["message"]


def test_more_gpus_than_exist_stay_pending(bench: Bench) -> None:
    resources = {"limits": {"nvidia.com/gpu": "8"}}
    bench.run(pod("big", {"image": "registry.k8s.io/pause:3", "resources": resources}, **GPU_NODE))
    found = bench.wait("big", lambda status: status.get("conditions"))
    assert "Insufficient nvidia.com/gpu" in found["status"]["conditions"][0]["message"]
