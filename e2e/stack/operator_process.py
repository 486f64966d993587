"""A running operator, as its kubelet and its Prometheus would see it: probes, metrics, log.

It must never be asked for anything that a cluster's own parts could not ask for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from e2e.controlplane.inside_http import InsideConnection
from e2e.controlplane.namespace import Namespace

AT_WORK = "At work"
"""What the operator logs once it holds the Lease and has listed the cluster."""

_LOOPBACK = "127.0.0.1"
_WRITE = re.compile(r'^rest_client_requests_total\{.*method="(?:PATCH|POST|DELETE)".*\} (\S+)$', re.MULTILINE)


class Program(Protocol):
    """What runs the operator: something that logs to a file and can be ended."""

    @property
    def log(self) -> Path:
        """Where its output goes."""

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""

    def stop(self) -> object:
        """End it with SIGTERM."""

    def kill(self) -> object:
        """End it with SIGKILL."""


P = TypeVar("P", bound=Program)


@dataclass(frozen=True, slots=True)
class OperatorProcess(Generic[P]):
    """One process of the operator; its ports are on the loopback of `network`."""

    program: P
    network: Namespace
    health_port: int
    metrics_port: int

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.program.is_running

    @property
    def is_at_work(self) -> bool:
        """Whether it leads and has listed the cluster."""
        return AT_WORK in self.output

    @property
    def is_ready(self) -> bool:
        """Whether its readiness probe succeeds."""
        return self.probe("/readyz")[0] == 200

    @property
    def output(self) -> str:
        """Everything that it has logged."""
        return self.program.log.read_text(errors="replace") if self.program.log.exists() else ""

    def probe(self, path: str) -> tuple[int, str]:
        """Status and text of a probe (`/healthz`, `/readyz`); status 0 while nobody listens."""
        return self._get(self.health_port, path)

    def metric(self, start: str) -> float:
        """The sum of all samples whose line starts so."""
        lines = self._metrics().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(start))

    def writes(self) -> int:
        """How many writing requests it has sent to the API server; renewals of the Lease (PUT) are left out."""
        return sum(int(float(count)) for count in _WRITE.findall(self._metrics()))

    def reconciliations(self) -> int:
        """How often it has looked at any LLMDeployment."""
        return int(self.metric("controller_runtime_reconcile_total{"))

    def kill(self) -> None:
        """Kill -9 it, as a crash would."""
        self.program.kill()

    def stop(self) -> None:
        """Ask it to end, as a kubelet would; it gives its Lease back."""
        self.program.stop()

    def _metrics(self) -> str:
        return self._get(self.metrics_port, "/metrics")[1]

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
