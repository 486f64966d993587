from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from e2e.controlplane.cluster import Cluster
from e2e.localnode.handle import LocalNodeProcess

INVENTORIES = Path(__file__).resolve().parents[2] / "e2e" / "inventories"
CPU_NODE = "localnode-cpu"
# Keeps pods of other tests away: nodes live as long as the tests of this folder run.
TAINT = {"key": "localnode", "value": "tests", "effect": "NoSchedule"}


def cpu_node(name: str) -> dict[str, object]:
    """A node manifest for pods that tolerate `TAINT`."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "spec": {"taints": [TAINT]},
        "status": {"capacity": {"cpu": "64", "memory": "64Gi", "pods": "100"}},
    }


@pytest.fixture(scope="package")
def local_node(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNodeProcess]:
    """A local node with one CPU node and one simulated GPU node, for all tests of this folder."""
    directory = tmp_path_factory.mktemp("localnode")
    own = directory / "cpu.yaml"
    own.write_text(yaml.safe_dump(cpu_node(CPU_NODE)))
    node = LocalNodeProcess(
        cluster,
        [own, INVENTORIES / "4x-l4.yaml"],
        directory / "state",
        arguments=["--back-off", "0.5", "--remove-nodes"],
        variables={"STOWAGE_AGENT_DIR": os.fspath(directory)},
    )
    with node:
        yield node
