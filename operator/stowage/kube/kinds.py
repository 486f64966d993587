"""The kinds that Stowage reads or writes, and where they live in the REST API.

A fixed table instead of discovery at every start: the operator knows exactly which kinds it has rights for.
Secrets are not in it and must never be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from stowage.world import ObjectRef


class Kind(NamedTuple):
    """One Kubernetes kind by version."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    def __str__(self) -> str:
        return f"{self.api_version}/{self.kind}"

    @property
    def group(self) -> str:
        """The API group; empty for the core group."""
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        """The version inside the group."""
        return self.api_version.rpartition("/")[2]

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str = "") -> str:
        """The URL path of the collection, of one object, or of its subresource."""
        parts = ["/apis" if self.group else "/api", self.api_version]
        if self.namespaced and namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name:
            parts.append(quote(name, safe=""))
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


LLM_DEPLOYMENT = Kind("stowage.dev/v1alpha1", "LLMDeployment", "llmdeployments")
NODE = Kind("v1", "Node", "nodes", namespaced=False)
POD = Kind("v1", "Pod", "pods")
RESOURCE_QUOTA = Kind("v1", "ResourceQuota", "resourcequotas")
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
SERVICE = Kind("v1", "Service", "services")
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
JOB = Kind("batch/v1", "Job", "jobs")
REPLICA_SET = Kind("apps/v1", "ReplicaSet", "replicasets")
POD_DISRUPTION_BUDGET = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
POD_MONITOR = Kind("monitoring.coreos.com/v1", "PodMonitor", "podmonitors")
EVENT = Kind("events.k8s.io/v1", "Event", "events")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")

CHILD_KINDS = (CONFIG_MAP, SERVICE, DEPLOYMENT, REPLICA_SET, POD_DISRUPTION_BUDGET, JOB)
"""Watched with our own label only."""

ROOM_KINDS = (NODE, POD)
"""What decides about free room: read in the whole cluster, whichever namespaces are served."""

OPTIONAL_KINDS = (POD_MONITOR,)
"""Read and written only where the cluster has them."""

WATCHED_KINDS = (LLM_DEPLOYMENT, NODE, POD, RESOURCE_QUOTA, *CHILD_KINDS)

_BY_NAME: Mapping[tuple[str, str], Kind] = {
    (kind.api_version, kind.kind): kind for kind in (*WATCHED_KINDS, *OPTIONAL_KINDS, EVENT, LEASE)
}


def kind_named(api_version: str, kind: str) -> Kind:
    """The row of a kind; KeyError means that the operator has no business with it, which is a bug."""
    return _BY_NAME[api_version, kind]


def kind_of(obj: Mapping[str, Any] | ObjectRef) -> Kind:
    """The row of the kind of a raw object or reference."""
    if isinstance(obj, ObjectRef):
        return kind_named(obj.api_version, obj.kind)
    return kind_named(obj["apiVersion"], obj["kind"])
