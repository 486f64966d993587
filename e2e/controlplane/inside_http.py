"""HTTP to a pod or Service from a process that is not in the cluster's network, tests and demo above all.

It is `http.client` on a socket of the inside, so it works in every network mode and from every thread.
"""

from __future__ import annotations

import http.client

from e2e.controlplane.namespace import Namespace


class InsideConnection(http.client.HTTPConnection):
    """A plain HTTP connection to `host`:`port` of the cluster's network; used like its base class."""

    def __init__(self, namespace: Namespace, host: str, port: int, timeout_seconds: float = 30.0) -> None:
        super().__init__(host, port, timeout=timeout_seconds)
        self._namespace = namespace
        self._timeout_seconds = timeout_seconds

    def connect(self) -> None:
        """Open the socket through the namespace; raises `OSError` where nobody answers."""
        self.sock = self._namespace.connect(self.host, self.port, self._timeout_seconds)
