"""The control plane for component tests, and a client that talks to it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from e2e.controlplane.cluster import Cluster
from stowage.kube.client import KubeClient
from stowage.kube.connection import load_connection


@pytest_asyncio.fixture
async def client(cluster: Cluster) -> AsyncIterator[KubeClient]:
    connected = KubeClient(await load_connection(str(cluster.kubeconfig)))
    yield connected
    await connected.close()
