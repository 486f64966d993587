"""What every pod of a local node shares: the API, the allow-list, addresses, and what this machine allows.

A plain record, so that the parts that run pods need not know the part that owns them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from e2e.localnode.addresses import AddressPool
from e2e.localnode.api_client import ApiClient
from e2e.localnode.images import ImageCatalog
from e2e.localnode.isolation import Isolation


@dataclass(frozen=True, slots=True)
class NodeContext:
    """The surroundings of a pod.

    `token` names this process's things outside of its state directory; `api_address` is where pods find the API
    server; `services` returns the Services known now; `host_address` is what `status.hostIP` says;
    `back_off_seconds` is the wait before the second restart.
    """

    api: ApiClient
    http: aiohttp.ClientSession
    images: ImageCatalog
    addresses: AddressPool
    isolation: Isolation
    state_dir: Path
    token: str
    api_address: tuple[str, int]
    services: Callable[[], Iterable[Mapping[str, Any]]]
    host_address: str = "127.0.0.1"
    back_off_seconds: float = 1.0

    @property
    def staging(self) -> Path:
        """The empty directory on which containers' roots are built."""
        return self.state_dir / "root"

    @property
    def records(self) -> Path:
        """Where running processes are recorded."""
        return self.state_dir / "processes"

    def pod_directory(self, uid: str) -> Path:
        """Return the directory of one pod."""
        return self.state_dir / "pods" / uid


def new_container_id(pod_uid: str, name: str) -> str:
    """Return an id for one run of a container."""
    return f"localnode://{pod_uid}/{name}/{time.monotonic_ns():x}"
