"""The kind PodMonitor, which a cluster may have or not."""

from __future__ import annotations

import json
from dataclasses import dataclass

from e2e.controlplane.cluster import Cluster
from tests.e2e.waiting import wait_until

_NAME = "podmonitors.monitoring.coreos.com"
_GROUP_PATH = "/apis/monitoring.coreos.com/v1"
_SCHEMA = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": _NAME},
    "spec": {
        "group": "monitoring.coreos.com",
        "scope": "Namespaced",
        "names": {"kind": "PodMonitor", "plural": "podmonitors", "singular": "podmonitor"},
        "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": _SCHEMA}}],
    },
}


@dataclass(frozen=True, slots=True)
class PodMonitors:
    """Installs and removes the kind in a cluster."""

    cluster: Cluster

    def install(self) -> None:
        self.cluster.kubectl("apply", "-f", "-", input_text=json.dumps(_CRD))
        wait_until(lambda: all(self._answers()), "PodMonitors to be served")

    def remove(self) -> None:
        self.cluster.kubectl("delete", f"crd/{_NAME}", "--ignore-not-found")
        wait_until(lambda: not any(self._answers()), "PodMonitors to be served no more")

    def _answers(self) -> tuple[bool, bool]:
        """Whether the server lists the kind among its kinds, and whether it lists the objects: one may be late."""
        known = self.cluster.kubectl("get", "--raw", _GROUP_PATH, check=False)
        listed = self.cluster.kubectl("get", "--raw", f"{_GROUP_PATH}/podmonitors", check=False)
        return "podmonitors" in known.stdout, listed.returncode == 0
