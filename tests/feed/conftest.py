"""The control plane for component tests, a client that talks to it, and what is shipped installed in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from e2e.controlplane.cluster import Cluster
from e2e.controlplane.control_plane import ControlPlane
from stowage.kube.client import KubeClient
from stowage.kube.connection import load_connection
from tests.feed.pod_monitors import PodMonitors
from tests.feed.shipped_files import CRD, CRD_NAME, RIGHTS


@pytest_asyncio.fixture
async def client(cluster: Cluster) -> AsyncIterator[KubeClient]:
    connected = KubeClient(await load_connection(str(cluster.kubeconfig)))
    yield connected
    await connected.close()


@pytest.fixture
def pod_monitors(cluster: Cluster) -> Iterator[PodMonitors]:
    """An optional kind: not installed yet, and gone at the end."""
    subject = PodMonitors(cluster)
    yield subject
    subject.remove()


@pytest.fixture(scope="session")
def shipped(cluster: Cluster) -> None:
    """The CRD and the RBAC of the shipped manifests; the operator's own Deployment stays at zero."""
    cluster.kubectl("apply", "-f", str(CRD), "-f", str(RIGHTS))
    cluster.kubectl("scale", "deployment", "stowage", "-n", "stowage-system", "--replicas=0")
    cluster.kubectl("wait", "--for=condition=Established", CRD_NAME, "--timeout=30s")


@pytest.fixture(scope="session")
def account(control_plane: ControlPlane, shipped: None) -> Path:
    """A kubeconfig with the token of the operator's ServiceAccount."""
    return control_plane.service_account_kubeconfig("stowage-system", "stowage")
