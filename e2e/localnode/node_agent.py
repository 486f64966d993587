"""Play one Node object: create it, set its status once, keep its Lease alive.

A Node that somebody deletes stays deleted, as with a kubelet that is not restarted. It must never change a
Node that another kubelet plays; the annotation says whose it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import aiohttp

from e2e.localnode.api_client import MERGE, ApiClient, ApiError
from e2e.localnode.inventory import NodeManifest
from e2e.localnode.status import rfc3339

OWNER_ANNOTATION = "localnode.stowage.dev/played"
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_LEASE_SECONDS, _RENEW_SECONDS = 40, 10
_LOG = logging.getLogger(__name__)


class NodeAgent:
    """One node; `address` is where the API server reaches the log endpoint on `port`."""

    def __init__(self, api: ApiClient, manifest: NodeManifest, address: str, port: int) -> None:
        self.manifest = manifest
        self.deleted = False
        self._api = api
        self._address = address
        self._port = port
        self._uid = ""

    async def register(self) -> None:
        """Create the Node, or take over the one that an earlier run of this tool created.

        Raises `ApiError` for a Node of that name that is somebody else's.
        """
        body = self._object()
        try:
            node = await self._api.create("/api/v1/nodes", body)
        except ApiError as error:
            if error.code != 409:
                raise
            node = dict(await self._adopt(body))
        self._uid = node["metadata"]["uid"]
        path = f"/api/v1/nodes/{self.manifest.name}/status"
        await self._api.patch(path, {"status": self._status()}, MERGE)
        await self._renew()

    async def keep_alive(self) -> None:
        """Renew the Lease until cancelled, or until the Node is gone."""
        while not self.deleted:
            await asyncio.sleep(_RENEW_SECONDS)
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                try:
                    await self._renew()
                except ApiError as error:
                    await self._check(error)

    async def remove(self) -> None:
        """Delete the Node and its Lease."""
        for path in (f"/api/v1/nodes/{self.manifest.name}", f"{_LEASES}/{self.manifest.name}"):
            with contextlib.suppress(ApiError, aiohttp.ClientError, OSError):
                await self._api.delete(path)

    async def _adopt(self, body: dict[str, Any]) -> Mapping[str, Any]:
        path = f"/api/v1/nodes/{self.manifest.name}"
        known = await self._api.get(path)
        if OWNER_ANNOTATION not in (known["metadata"].get("annotations") or {}):
            raise ApiError(409, f"node {self.manifest.name} exists already and is not a local node's")
        return await self._api.patch(path, {"metadata": body["metadata"], "spec": body["spec"]}, MERGE)

    async def _renew(self) -> None:
        name = self.manifest.name
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        renewal = {"spec": {"renewTime": now, "holderIdentity": name, "leaseDurationSeconds": _LEASE_SECONDS}}
        try:
            await self._api.patch(f"{_LEASES}/{name}", renewal, MERGE)
        except ApiError as error:
            if error.code != 404 or self.deleted:
                raise
            await self._api.get(f"/api/v1/nodes/{name}")
            owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": self._uid}
            metadata = {"name": name, "namespace": "kube-node-lease", "ownerReferences": [owner]}
            lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}
            await self._api.create(_LEASES, {**lease, **renewal})

    async def _check(self, error: ApiError) -> None:
        if error.code == 404:
            self.deleted = True
            _LOG.warning("node %s was deleted: its lease is no longer renewed", self.manifest.name)
        else:
            _LOG.warning("lease of %s: %s", self.manifest.name, error)

    def _object(self) -> dict[str, Any]:
        manifest = self.manifest
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": manifest.name,
                "labels": dict(manifest.labels),
                "annotations": {**manifest.annotations, OWNER_ANNOTATION: "true"},
            },
            "spec": {
                "taints": [dict(taint) for taint in manifest.taints],
                "unschedulable": manifest.unschedulable,
            },
        }

    def _status(self) -> dict[str, Any]:
        now = rfc3339(datetime.now(UTC))
        return {
            "capacity": dict(self.manifest.capacity),
            "allocatable": dict(self.manifest.allocatable),
            "addresses": [
                {"type": "InternalIP", "address": self._address},
                {"type": "Hostname", "address": self.manifest.name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._port}},
            "conditions": [
                _condition("Ready", "True", "KubeletReady", "the local node is ready", now),
                _condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "not measured", now),
                _condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "not measured", now),
                _condition("PIDPressure", "False", "KubeletHasSufficientPID", "not measured", now),
            ],
            "nodeInfo": {
                "architecture": "amd64",
                "operatingSystem": "linux",
                "osImage": "processes of this machine (stowage local node)",
                "kernelVersion": platform.release(),
                "kubeletVersion": "v1.36.2-localnode",
                "kubeProxyVersion": "",
                "containerRuntimeVersion": "localnode://1",
                "machineID": "",
                "systemUUID": "",
                "bootID": "",
            },
        }


def _condition(kind: str, status: str, reason: str, message: str, now: str) -> dict[str, str]:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    }
