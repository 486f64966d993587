"""The running operator of a stack, as its kubelet and its Prometheus would see it: probes, metrics, log.

It must never be asked for anything that a cluster's own parts could not ask for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from e2e.controlplane.inside_http import InsideConnection
from e2e.controlplane.namespace import Namespace
from e2e.stack.service import Service

_LOOPBACK = "127.0.0.1"
_WRITE = re.compile(r'rest_client_requests_total\{.*method="(PATCH|POST|DELETE)".*\} (\S+)')


@dataclass(frozen=True, slots=True)
class OperatorProcess:
    """One process of the operator; its ports are on the inside of the cluster's network."""

    service: Service
    network: Namespace
    health_port: int
    metrics_port: int

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.service.is_running

    @property
    def output(self) -> str:
        """Everything that it has logged."""
        return self.service.log.read_text(errors="replace") if self.service.log.exists() else ""

    def probe(self, path: str) -> tuple[int, str]:
        """Status and text of a probe (`/healthz`, `/readyz`); status 0 while nobody listens."""
        return self._get(self.health_port, path)

    def writes(self) -> int:
        """How many writing requests it has sent to the API server; renewals of the Lease (PUT) are left out."""
        return sum(
            int(float(count)) for _, count in _WRITE.findall(self._get(self.metrics_port, "/metrics")[1])
        )

    def reconciliations(self) -> int:
        """How often it has looked at any LLMDeployment."""
        text = self._get(self.metrics_port, "/metrics")[1]
        samples = re.findall(r"^controller_runtime_reconcile_total\{.*\} (\S+)$", text, re.MULTILINE)
        return sum(int(float(sample)) for sample in samples)

    def kill(self) -> None:
        """Kill -9 it, as a crash would."""
        self.service.kill()

    def stop(self) -> None:
        """Ask it to end, as a kubelet would; it gives its Lease back."""
        self.service.stop()

    def _get(self, port: int, path: str) -> tuple[int, str]:
        connection = InsideConnection(self.network, _LOOPBACK, port, timeout_seconds=10.0)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()
