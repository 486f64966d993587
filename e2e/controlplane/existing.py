"""Use a cluster that is there already; nothing of it is ever started, stopped or cleaned by this tool."""

from __future__ import annotations

from e2e.controlplane.binaries import ExistingCluster
from e2e.controlplane.cluster import Cluster
from e2e.controlplane.namespace import Namespace


def existing_cluster(found: ExistingCluster) -> Cluster:
    """Return the cluster that was asked for; its pods are reached, if at all, by this machine's network."""
    network = Namespace("loopback", found.kubeconfig.parent, reason="an existing cluster is used")
    return Cluster(found.kubeconfig, found.kubectl, network)
