"""Pytest fixtures: one control plane per test process, one fresh Kubernetes namespace per test.

Load them by `pytest_plugins = ["e2e.controlplane.fixtures"]`. With xdist each worker has a control plane of
its own (660 MB), so use two workers at most on a small machine. The test process stays outside of the
cluster's network: it talks to the API server by the kubeconfig, to pods by
`control_plane.namespace.connect`, `listen` or `InsideConnection`, and starts what must live inside by
`control_plane.namespace.popen`. STOWAGE_CONTROL_PLANE names the state directory of one that is up already,
which is then used and left running. A missing binary is a failure, never a skip.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.controlplane.binaries import BinariesMissing, ExistingCluster, find
from e2e.controlplane.cluster import Cluster
from e2e.controlplane.control_plane import ControlPlane
from e2e.controlplane.existing import existing_cluster
from e2e.controlplane.go_module import GoModule

ATTACH_VARIABLE = "STOWAGE_CONTROL_PLANE"
_ACCOUNT_SECONDS = 30.0
Kubectl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def own_or_existing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane | Cluster]:
    """Start a control plane, or take the cluster that the environment names."""
    if directory := os.environ.get(ATTACH_VARIABLE):
        yield ControlPlane.attach(Path(directory))
        return
    try:
        found = find(os.environ, GoModule.own(), None)
    except BinariesMissing as error:
        pytest.fail(str(error), pytrace=False)
    if isinstance(found, ExistingCluster):
        yield existing_cluster(found)
        return
    with ControlPlane(tmp_path_factory.mktemp("cluster") / "state", found) as plane:
        yield plane


@pytest.fixture(scope="session")
def control_plane(own_or_existing: ControlPlane | Cluster) -> ControlPlane:
    """Return the own control plane, whose components a test may kill if it brings them back."""
    if isinstance(own_or_existing, Cluster):
        pytest.skip("needs a control plane of its own, and USE_EXISTING_CLUSTER=true was set")
    return own_or_existing


@pytest.fixture(scope="session")
def cluster(own_or_existing: ControlPlane | Cluster) -> Cluster:
    """Return the cluster, own or existing."""
    return own_or_existing if isinstance(own_or_existing, Cluster) else own_or_existing.cluster


@pytest.fixture
def kubectl(cluster: Cluster) -> Kubectl:
    """Return `Cluster.kubectl`: `kubectl("get", "pods", "-n", namespace).stdout`."""
    return cluster.kubectl


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """Create a namespace in which pods are accepted; its deletion is asked for, not waited for."""
    name = f"test-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", name)
    deadline = time.monotonic() + _ACCOUNT_SECONDS
    while cluster.kubectl("get", "serviceaccount", "default", "-n", name, check=False).returncode != 0:
        if time.monotonic() > deadline:
            pytest.fail(f"namespace {name} got no service account in {_ACCOUNT_SECONDS:.0f} s")
        time.sleep(0.1)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false", check=False)
