"""Control plane, nodes, Hub and operator on this machine, started in order and ended in reverse.

The operator runs as in a cluster: with the token of its own ServiceAccount and the RBAC that is shipped, never as
administrator. It must never share a state directory with another stack.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from e2e.controlplane.cluster import Cluster
from e2e.controlplane.control_plane import ControlPlane
from e2e.controlplane.inside_http import InsideConnection
from e2e.controlplane.ports import free_ports
from e2e.controlplane.progress import Reporter
from e2e.stack.operator_process import AT_WORK, OperatorProcess
from e2e.stack.service import Service, ServiceFailed
from stowage import __version__
from tools.build_agent import build_agent

REPOSITORY = Path(__file__).resolve().parents[2]
_SHIPPED = REPOSITORY / "deploy" / "operator.yaml"
HUB_ADDRESS = "10.244.255.254"
HUB_PORT = 8080
OPERATOR_NAMESPACE = "stowage-system"
OPERATOR_ACCOUNT = "stowage"
AGENT_IMAGE = f"ghcr.io/stowage-dev/stowage:{__version__}"
_READY_SECONDS = 60.0


class StackError(Exception):
    """A part of the stack did not start; the message says which, and why."""


class Stack:
    """The parts of one stack below `directory`; `control_plane` is used and left running."""

    def __init__(
        self,
        control_plane: ControlPlane,
        directory: Path,
        *,
        inventories: Sequence[Path],
        vllm_environment: Path | None = None,
        reporter: Reporter | None = None,
        detached: bool = False,
    ) -> None:
        self.control_plane = control_plane
        self.directory = directory.absolute()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.inventories = tuple(inventories)
        self.vllm_environment = vllm_environment
        self.operator_variables: dict[str, str] = {}
        """Added to the environment of every operator that is started."""
        self.reporter = reporter or Reporter(quiet=True)
        self.detached = detached
        self.on_start: Callable[[Service], None] | None = None
        """Told of each program as soon as its process exists, before it is ready."""
        self.runs_pods = True
        """Whether this machine lets the nodes show volumes to pods; known once the nodes are up."""
        self.services: dict[str, Service] = {}
        self._starts = 0
        # On plain loopback other programs share the ports.
        self._hub_port = free_ports(1, random.SystemRandom())[0]

    def __enter__(self) -> Stack:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def cluster(self) -> Cluster:
        """The cluster as its users see it."""
        return self.control_plane.cluster

    @property
    def models(self) -> Path:
        """Folder of the Hub's repositories: ORG/NAME/."""
        return self.directory / "models"

    @property
    def hub_endpoint(self) -> str:
        """HF_ENDPOINT of the local Hub."""
        if self.cluster.namespace.isolated:
            return f"http://{HUB_ADDRESS}:{HUB_PORT}"
        return f"http://127.0.0.1:{self._hub_port}"

    def start(self) -> None:
        """Start everything; raises `StackError` with the end of the log of the part that failed."""
        self.start_hub()
        self.start_nodes()
        self.install()
        self.start_operator()

    def stop(self) -> None:
        """End every part in reverse order; the control plane stays."""
        for name in reversed(list(self.services)):
            self.services.pop(name).stop()

    def start_hub(self) -> None:
        """Start the local Hub on what lies in `models`, and on the published configurations."""
        self.models.mkdir(exist_ok=True)
        host, _, port = self.hub_endpoint.removeprefix("http://").partition(":")
        command = [
            sys.executable,
            "-m",
            "e2e.hub",
            "--root",
            str(self.models),
            "--host",
            host,
            "--port",
            port,
        ]
        service = self._service("hub", command, {})
        self._start(service, lambda: service.wrote("HF_ENDPOINT="))

    def set_hub_fault(self, repository: str, **fault: Any) -> None:
        """Make the Hub fail for one repository (see `e2e.hub.faults`); without a fault it works again."""
        host, _, port = self.hub_endpoint.removeprefix("http://").partition(":")
        connection = InsideConnection(self.cluster.namespace, host, int(port))
        try:
            connection.request(
                "PUT" if fault else "DELETE", f"/control/faults/{repository}", json.dumps(fault)
            )
            answer = connection.getresponse()
            if answer.status != 200:
                raise StackError(f"the Hub does not know this fault: {answer.read().decode()}")
        finally:
            connection.close()

    def start_nodes(self) -> None:
        """Start the node process: it registers the inventories' nodes and runs pods on them."""
        agent_directory = self.directory / "agent"
        agent_directory.mkdir(exist_ok=True)
        build_agent(agent_directory / "agent.pyz")
        command = [sys.executable, "-m", "e2e.localnode", "--kubeconfig", str(self.cluster.kubeconfig)]
        command += ["--state-dir", str(self.directory / "nodes"), "--remove-nodes"]
        for inventory in self.inventories:
            command += ["--inventory", str(inventory)]
        variables = {
            "STOWAGE_VENV": str(Path(sys.executable).parent.parent),
            "STOWAGE_REPO": str(REPOSITORY),
            "STOWAGE_AGENT_DIR": str(agent_directory),
            "STOWAGE_VLLM_ENV": str(self.vllm_environment or ""),
        }
        service = self._service("nodes", command, variables)
        self._start(service, lambda: service.wrote("ready:"))
        self.runs_pods = not service.wrote("no mount namespaces")

    def install(self) -> None:
        """Install the CRD and the operator's account and rights, as shipped."""
        self.install_crd()
        shipped = {"apiVersion": "v1", "kind": "List", "items": _without_workload(_SHIPPED)}
        self.cluster.kubectl("apply", "-f", "-", input_text=json.dumps(shipped))

    def install_crd(self) -> None:
        """Install the CRD and wait until the API server serves it."""
        crds = str(REPOSITORY / "crds")
        self.cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", crds)
        deadline = time.monotonic() + _READY_SECONDS
        while not self._is_established():
            if time.monotonic() > deadline:
                raise StackError(f"the CRD was not established after {_READY_SECONDS:.0f} s")
            time.sleep(0.1)

    def _is_established(self) -> bool:
        """Asked one by one: `kubectl wait` fails on a CRD that has no conditions yet."""
        status = self.cluster.get("crd", "llmdeployments.stowage.dev").get("status") or {}
        return any(
            item["type"] == "Established" and item["status"] == "True"
            for item in status.get("conditions") or ()
        )

    def start_operator(
        self,
        *,
        name: str = "operator",
        agent_image: str = AGENT_IMAGE,
        variables: Mapping[str, str] | None = None,
        wait: bool = True,
    ) -> OperatorProcess[Service]:
        """Start an operator with its own token; `agent_image` stands for its version.

        `variables` are added to those of the stack. With `wait` it is at work when this returns.
        """
        account = self.control_plane.service_account_kubeconfig(OPERATOR_NAMESPACE, OPERATOR_ACCOUNT)
        health_port, metrics_port = free_ports(2, random.SystemRandom())
        environment = {
            "KUBECONFIG": str(account),
            "HF_ENDPOINT": self.hub_endpoint,
            "STOWAGE_AGENT_IMAGE": agent_image,
            "STOWAGE_LEASE_NAMESPACE": OPERATOR_NAMESPACE,
            "STOWAGE_HOST": "127.0.0.1",
            "STOWAGE_HEALTH_PORT": str(health_port),
            "STOWAGE_METRICS_PORT": str(metrics_port),
            **self.operator_variables,
            **(variables or {}),
        }
        command = [sys.executable, "-m", "e2e.stack.keeper", sys.executable, "-m", "stowage.app"]
        service = self._service(name, command, environment)
        if wait:
            self._start(service, lambda: service.wrote(AT_WORK))
        else:
            self._spawn(service)
        return OperatorProcess(service, self.cluster.namespace, health_port, metrics_port)

    def _service(self, name: str, command: Sequence[str], variables: dict[str, str]) -> Service:
        """A program that is not started yet; every start has a log of its own."""
        self._starts += 1
        log = self.directory / f"{name}-{self._starts}.log"
        log.unlink(missing_ok=True)
        service = Service(name, command, variables, log)
        self.services[name] = service
        return service

    def _spawn(self, service: Service) -> None:
        service.start(self.cluster.namespace, detached=self.detached)
        if self.on_start is not None:
            self.on_start(service)

    def _start(self, service: Service, ready: Callable[[], bool]) -> None:
        self._spawn(service)
        try:
            service.wait_until(ready, _READY_SECONDS)
        except ServiceFailed as error:
            raise StackError(str(error)) from error


def _without_workload(path: Path) -> list[Mapping[str, Any]]:
    """The shipped objects but the operator's own Deployment, whose place the process of this stack takes."""
    documents = yaml.safe_load_all(path.read_text(encoding="utf-8"))
    kinds = {"Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}
    return [document for document in documents if document and document["kind"] in kinds]
