"""The operator as a child of the test, which sees its exit code; its rights are the shipped ones."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from e2e.controlplane.namespace import Namespace
from e2e.controlplane.ports import free_ports
from e2e.stack.operator_process import OperatorProcess
from tests.e2e.waiting import wait_until


@dataclass(frozen=True, slots=True)
class OperatorChild:
    """`python -m stowage.app` with a Lease of its own."""

    child: subprocess.Popen[bytes]
    log: Path
    lease: str

    @property
    def is_running(self) -> bool:
        return self.child.poll() is None

    def exit_code(self, seconds: float) -> int:
        """Wait until it has ended."""
        return self.child.wait(timeout=seconds)

    def stop(self) -> int:
        """SIGTERM; gives the exit code."""
        self.child.send_signal(signal.SIGTERM)
        return self.exit_code(20.0)

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        if self.is_running:
            self.child.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.child.wait(timeout=10.0)


Operator = OperatorProcess[OperatorChild]


def start_operator(kubeconfig: Path, log: Path, lease: str, *flags: str) -> Operator:
    """Start one outside of the cluster's network, on free ports; it ends with this process at the latest."""
    health_port, metrics_port = free_ports(2, random.SystemRandom())
    command = [sys.executable, "-m", "stowage.app", f"--kubeconfig={kubeconfig}", "--host=127.0.0.1"]
    command += [f"--health-port={health_port}", f"--metrics-port={metrics_port}"]
    command += ["--crd-interval=0.5", "--fan-out-interval=0.5", *flags]
    command += [f"--lease-name={lease}", "--lease-namespace=stowage-system"]
    environment = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
    outside = Namespace("loopback", log.parent)
    with log.open("wb") as output:
        child = outside.popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    return OperatorProcess(OperatorChild(child, log, lease), outside, health_port, metrics_port)


def wait_at_work(operator: Operator) -> None:
    """Wait until it leads and has listed the cluster; fails when it ends instead."""

    def at_work() -> bool:
        assert operator.is_running, operator.output
        return operator.is_at_work

    wait_until(at_work, "the operator to be at work", explain=lambda: operator.output)
