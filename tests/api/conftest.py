from __future__ import annotations

from pathlib import Path

import pytest

from e2e.controlplane.cluster import Cluster
from stowage.api.crd import CRD_NAME
from tools.generate_crd import render

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def cluster_with_crd(cluster: Cluster) -> Cluster:
    """A cluster that serves the CRD as the models generate it now."""
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input_text=render())
    cluster.kubectl("wait", "--for=condition=Established", f"crd/{CRD_NAME}", "--timeout=30s")
    return cluster
