"""A local node that is stopped, killed and started again."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.controlplane.cluster import Cluster
from e2e.localnode.handle import LocalNodeError, LocalNodeProcess
from tests.localnode.conftest import TAINT, cpu_node

pytestmark = pytest.mark.cluster
PATIENCE_SECONDS = 40.0


@pytest.fixture
def node_name() -> str:
    return f"node-{secrets.token_hex(4)}"


@pytest.fixture
def inventory(tmp_path: Path, node_name: str) -> Path:
    file = tmp_path / "nodes.yaml"
    file.write_text(yaml.safe_dump(cpu_node(node_name)))
    return file


def pod(name: str, node: str, script: str, **spec: Any) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": "busybox:1",
        "command": ["sh", "-c", script],
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
    }
    manifest = {
        "nodeSelector": {"kubernetes.io/hostname": node},
        "tolerations": [{"key": TAINT["key"], "operator": "Exists"}],
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}],
        **spec,
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": manifest}


def wait(what: str, holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def running(marker: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found += [entry.name] * (marker in (entry / "cmdline").read_text())
            except OSError:
                continue
    return found


def container(cluster: Cluster, namespace: str, name: str) -> dict[str, Any]:
    statuses = cluster.get("pod", name, "-n", namespace)["status"].get("containerStatuses") or [{}]
    found: dict[str, Any] = statuses[0]
    return found


def shared_memory(marker: str) -> list[Path]:
    return list(Path("/dev/shm").glob(f"stowage-localnode-*/*/shm/{marker}"))


def test_a_node_that_is_killed_takes_its_pods_with_it_and_brings_them_back_when_it_returns(
    cluster: Cluster, namespace: str, inventory: Path, node_name: str, tmp_path: Path
) -> None:
    seconds = f"1{secrets.randbelow(10**8):08d}"
    script = f"touch /dev/shm/{seconds}; setsid sleep {seconds} & sleep {seconds}"
    node = LocalNodeProcess(cluster, [inventory], tmp_path / "state", arguments=["--remove-nodes"])
    with node:
        cluster.apply(pod("phoenix", node_name, script), namespace=namespace)
        wait("it starts", lambda: len(running(seconds)) >= 3 and shared_memory(seconds))
        wait("it is Running", lambda: "running" in container(cluster, namespace, "phoenix").get("state", {}))
        node.kill()
        wait("nothing is left of it", lambda: not running(seconds))
        node.start()
        wait("it is back", lambda: container(cluster, namespace, "phoenix").get("restartCount") == 1)
        last = container(cluster, namespace, "phoenix")["lastState"]["terminated"]
        assert (last["exitCode"], last["reason"]) == (137, "ContainerStatusUnknown")
        wait("it runs again", lambda: running(seconds))
    assert not running(seconds)
    assert not shared_memory(seconds)
    assert cluster.kubectl("get", "node", node_name, check=False).returncode != 0


def test_a_pod_whose_deletion_began_while_the_node_was_away_is_finished_when_it_returns(
    cluster: Cluster, namespace: str, inventory: Path, node_name: str, tmp_path: Path
) -> None:
    node = LocalNodeProcess(cluster, [inventory], tmp_path / "state", arguments=["--remove-nodes"])
    with node:
        cluster.apply(pod("leaving", node_name, "exec sleep 100"), namespace=namespace)
        wait("it runs", lambda: "running" in container(cluster, namespace, "leaving").get("state", {}))
        node.kill()
        cluster.kubectl("delete", "pod", "leaving", "-n", namespace, "--wait=false")
        node.start()
        wait(
            "it is gone",
            lambda: cluster.kubectl("get", "pod", "leaving", "-n", namespace, check=False).returncode,
        )


def test_a_pod_that_must_not_run_twice_fails_when_its_node_was_away(
    cluster: Cluster, namespace: str, inventory: Path, node_name: str, tmp_path: Path
) -> None:
    node = LocalNodeProcess(cluster, [inventory], tmp_path / "state", arguments=["--remove-nodes"])
    with node:
        cluster.apply(pod("once", node_name, "exec sleep 100", restartPolicy="Never"), namespace=namespace)
        wait("it runs", lambda: "running" in container(cluster, namespace, "once").get("state", {}))
        node.kill()
        node.start()
        wait("it failed", lambda: cluster.get("pod", "once", "-n", namespace)["status"]["phase"] == "Failed")


def test_pods_survive_an_api_server_that_goes_away(
    cluster: Cluster, namespace: str, inventory: Path, node_name: str, tmp_path: Path, control_plane: Any
) -> None:
    with LocalNodeProcess(cluster, [inventory], tmp_path / "state", arguments=["--remove-nodes"]):
        cluster.apply(pod("steady", node_name, "sleep 3; exit 4", restartPolicy="Never"), namespace=namespace)
        wait("it runs", lambda: "running" in container(cluster, namespace, "steady").get("state", {}))
        control_plane.restart("kube-apiserver")
        wait(
            "its end is reported",
            lambda: (
                container(cluster, namespace, "steady").get("state", {}).get("terminated", {}).get("exitCode")
                == 4
            ),
        )


def test_an_inventory_that_cannot_be_used_is_one_sentence(cluster: Cluster, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("kind: Pod\n")
    node = LocalNodeProcess(cluster, [bad], tmp_path / "state")
    with pytest.raises(LocalNodeError, match=r"bad\.yaml: expected kind Node or List"):
        node.start()


def test_a_node_of_somebody_else_is_not_taken(
    cluster: Cluster, inventory: Path, node_name: str, tmp_path: Path
) -> None:
    foreign = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node_name}}
    cluster.apply(foreign)
    node = LocalNodeProcess(cluster, [inventory], tmp_path / "state")
    with pytest.raises(LocalNodeError, match="exists already and is not a local node's"):
        node.start()
    cluster.kubectl("delete", "node", node_name)
