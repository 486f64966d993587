"""The control plane for real: what its controllers do, what survives a kill, what is left behind."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.controlplane.binaries import BinariesMissing, ExistingCluster, find
from e2e.controlplane.cluster import Cluster, KubectlError
from e2e.controlplane.components import START_ORDER
from e2e.controlplane.control_plane import ControlPlane, ControlPlaneError
from e2e.controlplane.fixtures import Kubectl
from e2e.controlplane.go_module import GoModule
from e2e.controlplane.processes import Process
from e2e.controlplane.state import StateError

pytestmark = pytest.mark.cluster

POD_LIMIT_SECONDS = 30.0


def eventually(what: str, look: Callable[[], Any]) -> Any:
    """Return the first true answer of `look`; fails after half a minute."""
    deadline = time.monotonic() + POD_LIMIT_SECONDS
    while not (answer := look()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.1)
    return answer


def deployment(name: str, replicas: int = 1) -> dict[str, Any]:
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "main", "image": "example.invalid/none"}]},
            },
        },
    }


def test_kubectl_and_the_server_say_the_pinned_version(kubectl: Kubectl) -> None:
    versions = json.loads(kubectl("version", "-o", "json").stdout)
    pinned = GoModule.own().kubernetes_version
    assert versions["clientVersion"]["gitVersion"] == versions["serverVersion"]["gitVersion"] == pinned
    assert versions["serverVersion"]["minor"] == "36"


def test_a_deployment_gets_a_replica_set_and_pods(cluster: Cluster, namespace: str) -> None:
    cluster.apply(deployment("web", replicas=2), namespace=namespace)
    pods = eventually(
        "two pods",
        lambda: (
            items
            if len(items := cluster.get("pods", "-n", namespace, "-l", "app=web")["items"]) == 2
            else None
        ),
    )
    assert {pod["metadata"]["ownerReferences"][0]["kind"] for pod in pods} == {"ReplicaSet"}


def test_a_pod_without_a_node_is_reported_as_unschedulable(cluster: Cluster, namespace: str) -> None:
    cluster.apply(deployment("lonely"), namespace=namespace)
    selector = "reason=FailedScheduling"
    events = eventually(
        "an event of the scheduler",
        lambda: cluster.get("events", "-n", namespace, "--field-selector", selector)["items"],
    )
    assert "no nodes available" in events[0]["message"]


def test_a_quota_refuses_what_exceeds_it(cluster: Cluster, namespace: str) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none"},
        "spec": {"hard": {"count/configmaps": "1", "configmaps": "1"}},
    }
    cluster.apply(quota, namespace=namespace)
    eventually(
        "the quota's usage",
        lambda: cluster.get("quota", "none", "-n", namespace).get("status", {}).get("used"),
    )
    with pytest.raises(KubectlError, match="exceeded quota"):
        cluster.kubectl("create", "configmap", "more", "-n", namespace)


def test_a_service_account_has_exactly_its_own_rights(control_plane: ControlPlane, namespace: str) -> None:
    kubectl = control_plane.cluster.kubectl
    kubectl("create", "role", "reader", "--verb=get,list", "--resource=pods", "-n", namespace)
    account = f"{namespace}:default"
    kubectl(
        "create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={account}", "-n", namespace
    )
    path = control_plane.service_account_kubeconfig(namespace, "default")
    own = control_plane.cluster
    limited = Cluster(path, own.kubectl_command, own.namespace, own.cache)
    assert limited.get("pods")["items"] == []
    with pytest.raises(KubectlError, match="secrets is forbidden"):
        limited.get("secrets")


def test_nobody_gets_in_without_a_credential(control_plane: ControlPlane) -> None:
    trust = ssl.create_default_context(cafile=str(control_plane.pki.ca.certificate))
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{control_plane.server}/api/v1/pods", context=trust)
    refused.value.close()
    assert refused.value.code == 401


def test_the_in_cluster_address_serves_the_api(control_plane: ControlPlane) -> None:
    if not control_plane.namespace.isolated:
        pytest.skip("the Service address needs a network namespace")
    kubectl = [
        *control_plane.cluster.kubectl_command,
        "--server=https://10.96.0.1:443",
        "get",
        "--raw=/readyz",
    ]
    result = subprocess.run(
        control_plane.namespace.wrap(kubectl),
        env=control_plane.cluster.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "ok"


@pytest.mark.parametrize("component", START_ORDER)
def test_a_killed_component_comes_back_with_its_data(
    control_plane: ControlPlane, namespace: str, component: str
) -> None:
    cluster = control_plane.cluster
    cluster.kubectl("create", "configmap", "kept", "--from-literal=a=b", "-n", namespace)
    before = control_plane.process(component)
    control_plane.kill(component)
    assert control_plane.dead_components() == [component]
    control_plane.start_component(component)
    control_plane.wait_ready()
    assert control_plane.process(component) != before
    kept = eventually(
        "the data", lambda: cluster.kubectl("get", "configmap", "kept", "-n", namespace, check=False).stdout
    )
    assert "kept" in kept
    cluster.apply(deployment("after"), namespace=namespace)
    eventually("a pod after the restart", lambda: cluster.get("pods", "-n", namespace)["items"])


def test_a_component_is_not_started_twice(control_plane: ControlPlane) -> None:
    with pytest.raises(ControlPlaneError, match="etcd runs already"):
        control_plane.start_component("etcd")


class CommandLine:
    """`python -m e2e.controlplane` with a state directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __call__(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "e2e.controlplane", "--state-dir", str(self.directory), *arguments]
        environment = {**os.environ, **variables}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    def recorded(self) -> list[Process]:
        record = json.loads((self.directory / "control-plane.json").read_text())
        entries = [*record["processes"].values(), record["namespace"]["gateway"]]
        return [Process.from_record(entry) for entry in entries if entry]


@pytest.fixture
def command_line(tmp_path: Path) -> Iterator[CommandLine]:
    try:
        found = find(os.environ, GoModule.own(), None)
    except BinariesMissing as error:
        pytest.fail(str(error), pytrace=False)
    if isinstance(found, ExistingCluster):
        pytest.skip("needs a control plane of its own, and USE_EXISTING_CLUSTER=true was set")
    command_line = CommandLine(tmp_path / "state")
    yield command_line
    command_line("down")


def test_up_env_and_down_from_an_ordinary_shell(command_line: CommandLine) -> None:
    up = command_line("up")
    assert up.returncode == 0, up.stderr
    assert "expected: " in up.stderr
    assert oct((command_line.directory / "kubeconfig").stat().st_mode & 0o777) == "0o600"
    processes = command_line.recorded()
    assert len(processes) >= len(START_ORDER)
    assert all(process.is_running() for process in processes)

    shell = (
        command_line("env").stdout
        + "kubectl get serviceaccount default -o name && in-cluster kubectl get --raw /readyz"
    )
    plain = {"HOME": str(command_line.directory), "PATH": "/usr/bin:/bin"}
    used = subprocess.run(["sh", "-ec", shell], env=plain, capture_output=True, text=True, check=False)
    assert used.stdout == "serviceaccount/default\nok", used.stderr

    assert command_line("kubectl", "get", "serviceaccount", "default", "-o", "name").stdout.strip() == (
        "serviceaccount/default"
    )
    assert command_line("exec", "--", "sh", "-c", "exit 7").returncode == 7
    assert command_line("status").returncode == 0

    second = command_line("up")
    assert second.returncode == 2
    assert "is up here already" in second.stderr
    assert all(process.is_running() for process in processes)

    assert command_line("down").returncode == 0
    assert not any(process.is_running() for process in processes)
    assert not command_line.directory.exists()
    assert command_line("down").returncode == 0
    assert command_line("env").returncode == 2


def test_what_is_dead_is_said_to_be_dead_and_cleaned_by_the_next_up(command_line: CommandLine) -> None:
    assert command_line("up").returncode == 0
    old = command_line.recorded()
    old[0].signal(signal.SIGKILL)
    assert old[0].wait_gone(10.0)
    status = command_line("status")
    assert status.returncode == 1
    assert "etcd: dead" in status.stdout
    again = command_line("up")
    assert again.returncode == 0, again.stderr
    assert "Cleaning up a control plane that is dead (etcd)" in again.stderr
    assert not any(process.is_running() for process in old)
    assert all(process.is_running() for process in command_line.recorded())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["interrupted", "terminated"])
def test_an_up_that_is_stopped_in_the_middle_leaves_nothing(
    command_line: CommandLine, number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "e2e.controlplane", "--state-dir", str(command_line.directory), "up"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        record = command_line.directory / "control-plane.json"
        eventually("a first component", lambda: record.exists() and '"etcd": {' in record.read_text())
        recorded = command_line.recorded()
        process.send_signal(number)
    assert process.returncode != 0
    assert not any(entry.is_running() for entry in recorded)
    assert not command_line.directory.exists()


def test_a_test_run_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    program = f"""
        import os, pathlib
        from e2e.controlplane.binaries import find
        from e2e.controlplane.control_plane import ControlPlane
        from e2e.controlplane.go_module import GoModule
        plane = ControlPlane(pathlib.Path({str(tmp_path / "state")!r}), find(os.environ, GoModule.own(), None))
        plane.start()
        processes = [plane.namespace.gateway, *plane.state.processes.values()]
        print(*(process.pid for process in processes if process), flush=True)
        input()
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        processes = [Process.of(int(pid)) for pid in run.stdout.readline().split()]
        run.kill()
    assert len(processes) >= len(START_ORDER)
    assert all(process is not None and process.wait_gone(10.0) for process in processes)


def test_an_unknown_part_of_the_binary_is_refused_with_the_list(cluster: Cluster) -> None:
    command = cluster.kubectl_command
    if len(command) == 1:
        pytest.skip("kubectl is not the multi-call binary here")
    result = subprocess.run([command[0], "kubelet"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert all(component in result.stderr for component in START_ORDER)


def test_a_directory_with_other_files_is_never_touched(command_line: CommandLine) -> None:
    command_line.directory.mkdir()
    precious = command_line.directory / "thesis.tex"
    precious.write_text("years of work")
    result = command_line("up")
    assert result.returncode == 2
    assert "name an empty state directory" in result.stderr
    assert precious.read_text() == "years of work"


def test_a_component_that_cannot_start_is_named_with_the_end_of_its_log(
    command_line: CommandLine, tmp_path: Path
) -> None:
    broken = tmp_path / "kube-apiserver"
    broken.write_text("#!/bin/sh\necho 'no such flag: --moon' >&2\nexit 1\n")
    broken.chmod(0o755)
    result = command_line("up", TEST_ASSET_KUBE_APISERVER=str(broken))
    assert result.returncode == 2
    assert "kube-apiserver ended" in result.stderr
    assert "no such flag: --moon" in result.stderr
    assert not command_line.directory.exists()


def test_attaching_where_nothing_is_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="start one with `up`"):
        ControlPlane.attach(tmp_path)
