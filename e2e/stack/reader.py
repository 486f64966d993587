"""Reads objects from the API server over plain HTTPS, cheaply enough to be asked ten times a second.

kubectl costs a process per question; what only waits for a state asks here. It must never write: what users do
is done by kubectl.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from typing import Any
from urllib.parse import urlencode, urlsplit

import yaml

from e2e.controlplane.cluster import Cluster

_GROUPS = {
    "llmdeployments": "apis/stowage.dev/v1alpha1",
    "deployments": "apis/apps/v1",
    "jobs": "apis/batch/v1",
    "replicasets": "apis/apps/v1",
    "poddisruptionbudgets": "apis/policy/v1",
    "podmonitors": "apis/monitoring.coreos.com/v1",
    "leases": "apis/coordination.k8s.io/v1",
    "events": "apis/events.k8s.io/v1",
}
_TIMEOUT_SECONDS = 30.0


class Reader:
    """Objects of one cluster by plural and name; what is in no group above is in the core one."""

    def __init__(self, cluster: Cluster) -> None:
        document = yaml.safe_load(cluster.kubeconfig.read_text(encoding="utf-8"))
        server = document["clusters"][0]["cluster"]
        url = urlsplit(server["server"])
        self._host, self._port = url.hostname or "", url.port or 443
        self._token: str = document["users"][0]["user"]["token"]
        self._tls = ssl.create_default_context(cadata=_authority(server["certificate-authority-data"]))

    def get(self, plural: str, name: str, namespace: str = "") -> dict[str, Any] | None:
        """One object; None where there is none (or no such kind). Raises OSError where the server is away."""
        return self._request(f"{_path(plural, namespace)}/{name}")

    def items(self, plural: str, namespace: str = "", **selectors: str) -> list[dict[str, Any]]:
        """All objects of a kind; `selectors` are the API's own (`labelSelector`, `fieldSelector`)."""
        query = f"?{urlencode(selectors)}" if selectors else ""
        answer = self._request(_path(plural, namespace) + query)
        return list(answer["items"]) if answer else []

    def _request(self, path: str) -> dict[str, Any] | None:
        connection = http.client.HTTPSConnection(
            self._host, self._port, timeout=_TIMEOUT_SECONDS, context=self._tls
        )
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {self._token}"})
            answer = connection.getresponse()
            text = answer.read()
        except http.client.HTTPException as error:
            raise OSError(f"the API server broke off: {error!r}") from error
        finally:
            connection.close()
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise OSError(f"GET {path}: {answer.status} {text[:300]!r}")
        found: dict[str, Any] = json.loads(text)
        return found


def _path(plural: str, namespace: str) -> str:
    scope = f"/namespaces/{namespace}" if namespace else ""
    return f"/{_GROUPS.get(plural, 'api/v1')}{scope}/{plural}"


def _authority(encoded: str) -> str:
    return base64.b64decode(encoded).decode()
