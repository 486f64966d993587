"""What the operator costs: time to work, memory, and API writes for one converged, idle LLMDeployment.

Runs on a control plane of its own, with a stand-in engine on a simulated GPU node. Writes are read from the API
server's own `apiserver_request_total`, for every kind that the operator writes (Leases are left out: renewing one
is its purpose).

    python bench/operator_footprint.py [--minutes 10]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from e2e.controlplane.binaries import ExistingCluster, find
from e2e.controlplane.build import build
from e2e.controlplane.control_plane import ControlPlane
from e2e.controlplane.go_module import GoModule
from e2e.controlplane.progress import Reporter
from e2e.stack import Stack
from e2e.tinymodel import TinyModel

_INVENTORY = Path(__file__).resolve().parents[1] / "e2e" / "inventories" / "4x-l4.yaml"
_KINDS = ("llmdeployments", "deployments", "services", "configmaps", "poddisruptionbudgets", "pods", "events")
_WRITES = ("APPLY", "PATCH", "POST", "PUT", "DELETE", "CREATE", "UPDATE")
_READY_SECONDS = 120.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to watch the idle object")
    options = parser.parse_args()
    module, reporter = GoModule.own(), Reporter()
    binaries = find(os.environ, module, lambda: build(module, os.environ, reporter))
    if isinstance(binaries, ExistingCluster):
        raise SystemExit("this bench starts a cluster of its own; unset USE_EXISTING_CLUSTER")
    with tempfile.TemporaryDirectory() as folder, ControlPlane(Path(folder) / "state", binaries) as plane:
        stack = Stack(plane, Path(folder) / "stack", inventories=[_INVENTORY])
        TinyModel().write(stack.models / "stowage" / "tiny")
        try:
            rows = measure(stack, options.minutes)
        finally:
            stack.stop()
    table = Table("figure", "value")
    for name, value in rows:
        table.add_row(name, value)
    Console().print(table)
    return 0


def measure(stack: Stack, minutes: float) -> list[tuple[str, str]]:
    stack.start_hub()
    stack.start_nodes()
    stack.install()
    started = time.monotonic()
    operator = stack.start_operator()
    seconds_to_work = time.monotonic() - started
    document = {
        "apiVersion": "stowage.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": "idle"},
        "spec": {"model": {"source": "hf://stowage/tiny"}},
    }
    stack.cluster.kubectl("apply", "-f", "-", input_text=json.dumps(document))
    ready = ("wait", "--for=condition=Ready", "llmd/idle", f"--timeout={_READY_SECONDS:.0f}s")
    stack.cluster.kubectl(*ready, timeout_seconds=_READY_SECONDS + 10)
    time.sleep(75.0)  # the last utilisation is written at most a minute after the first completion
    before = writes(stack)
    time.sleep(60.0 * minutes)
    after = writes(stack)
    return [
        ("start to work", f"{seconds_to_work:.1f} s"),
        ("resident memory", f"{operator.metric('process_resident_memory_bytes ') / 2**20:.0f} MiB"),
        (f"API writes for one idle object in {minutes:g} minutes", f"{after - before:.0f}"),
    ]


def writes(stack: Stack) -> float:
    text = stack.cluster.kubectl("get", "--raw", "/metrics").stdout
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        if family.name == "apiserver_request"
        for sample in family.samples
        if sample.labels.get("resource") in _KINDS and sample.labels.get("verb") in _WRITES
    )


if __name__ == "__main__":
    sys.exit(main())
