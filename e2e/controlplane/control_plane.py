"""Start, watch, break and stop one control plane: etcd, API server, controller manager and scheduler.

Its processes are known by pid and start time, die with their starter unless they were detached, and are
ended in the order scheduler, controller manager, API server, etcd. Data is thrown away with `stop`. It must
never touch a directory that is not its own, nor leave a process behind.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from e2e.controlplane.binaries import Binaries
from e2e.controlplane.cluster import Cluster
from e2e.controlplane.components import (
    PORT_NAMES,
    START_ORDER,
    STOP_ORDER,
    Layout,
    Options,
    arguments,
)
from e2e.controlplane.kubeconfig import certificate_user, token_user, write_kubeconfig
from e2e.controlplane.namespace import Namespace
from e2e.controlplane.pki import Pki, write_private
from e2e.controlplane.ports import free_ports
from e2e.controlplane.probe import Probe
from e2e.controlplane.processes import Process, launcher, spawn
from e2e.controlplane.progress import Reporter, Step
from e2e.controlplane.state import State, StateError, clear, exclusive
from e2e.controlplane.wrappers import write_wrappers

START_SECONDS = 120.0
_GRACE_SECONDS = {"etcd": 5.0, "kube-apiserver": 10.0, "kube-controller-manager": 3.0, "kube-scheduler": 3.0}
_READY_PATH = "/api/v1/namespaces/default/serviceaccounts/default"


class ControlPlaneError(Exception):
    """A component did not start or ended; the message holds the end of its log."""


class ControlPlane:
    """One control plane with its state in `directory`.

    Use it as a context manager, or by `start` and `stop`. Unless `detached`, every process is killed when the
    thread that called `start` ends, however it ends: start it from the main thread.
    """

    def __init__(
        self,
        directory: Path,
        binaries: Binaries,
        *,
        options: Options | None = None,
        detached: bool = False,
        reporter: Reporter | None = None,
    ) -> None:
        self.directory = directory.absolute()
        self._commands = binaries.to_record()
        self._options = options or Options()
        self._detached = detached
        self._reporter = reporter or Reporter(quiet=True)
        self._state: State | None = None

    @classmethod
    def attach(cls, directory: Path) -> ControlPlane:
        """Take hold of a control plane that another process started; raises `StateError` if there is none."""
        state = State.load(directory.absolute())
        if state is None:
            raise StateError(f"{directory}: no control plane here; start one with `up`")
        commands = {name: tuple(words) for name, words in state.commands.items()}
        plane = cls(directory, Binaries(commands, "attached"), options=state.options, detached=True)
        plane._state = state
        return plane

    @property
    def state(self) -> State:
        """What is known of the running control plane; raises `ControlPlaneError` before `start`."""
        if self._state is None:
            raise ControlPlaneError("the control plane is not started")
        return self._state

    @property
    def layout(self) -> Layout:
        """Its paths and ports."""
        return self.state.layout

    @property
    def namespace(self) -> Namespace:
        """The network that it runs in."""
        return self.state.namespace

    @property
    def pki(self) -> Pki:
        """Its certificate authority, for whoever needs another certificate."""
        return self.layout.pki

    @property
    def server(self) -> str:
        """The API server's address, the same inside and outside of the namespace."""
        return self.layout.server

    @property
    def bin_directory(self) -> Path:
        """The directory with `kubectl`, `curl` and `in-cluster` for an ordinary shell."""
        return self.directory / "bin"

    @property
    def cluster(self) -> Cluster:
        """The cluster as its users see it."""
        kubectl = tuple(self.state.commands["kubectl"])
        return Cluster(self.layout.kubeconfig, kubectl, self.namespace, self.directory / "kubectl-cache")

    def __enter__(self) -> ControlPlane:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything and wait until pods are accepted.

        A dead control plane in the same directory is cleaned away. Raises `StateError` where a live one is,
        and `ControlPlaneError` where a component fails; nothing is left running then.
        """
        with exclusive(self.directory):
            self._refuse_or_clean()
            try:
                with self._reporter.step("Starting the control plane", "5-20 s") as step:
                    self._prepare()
                    self._start_all(step)
                    write_wrappers(self.bin_directory, self.cluster)
            except BaseException:
                self._end()
                raise

    def stop(self) -> None:
        """End every process and remove the data. Stopping what is stopped does nothing."""
        if self._state is None:
            return
        with exclusive(self.directory):
            self._end()

    def start_component(self, component: str) -> None:
        """Start one component, on the data that is there, and wait until it answers."""
        running = self.state.processes.get(component)
        if running is not None and running.is_running():
            raise ControlPlaneError(f"{component} runs already (pid {running.pid})")
        self._spawn(component)
        self._wait(component, f"{component} to answer", lambda: self._answers(component))

    def _start_all(self, step: Step) -> None:
        """Start each component as soon as what it needs answers; the last two need the same."""
        for component in ("etcd", "kube-apiserver"):
            step.update(f"starting {component}")
            self.start_component(component)
        step.update("starting kube-controller-manager and kube-scheduler")
        for component in ("kube-controller-manager", "kube-scheduler"):
            self._spawn(component)
        self.wait_ready()
        self._wait("kube-scheduler", "kube-scheduler to answer", lambda: self._answers("kube-scheduler"))

    def _spawn(self, component: str) -> None:
        command = [*self.state.commands[component], *arguments(component, self.layout, self._options)]
        parent = None if self._detached else os.getpid()
        words = [*launcher(holder=self.namespace.gateway, session=True, parent=parent), *command]
        self.state.processes[component] = spawn(words, self.layout.log(component), os.environ)
        self.state.save()

    def kill(self, component: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to one component (by default kill -9) and wait until it has ended."""
        process = self.process(component)
        process.signal(number)
        if not process.wait_gone(_GRACE_SECONDS[component] + 5.0):
            raise ControlPlaneError(f"{component} (pid {process.pid}) outlived signal {number}")

    def restart(self, component: str) -> None:
        """Kill -9 one component and start it again on its data."""
        self.kill(component)
        self.start_component(component)

    def process(self, component: str) -> Process:
        """Return the process of one component; it may have ended."""
        try:
            return self.state.processes[component]
        except KeyError:
            raise ControlPlaneError(
                f"{component}: not started; it is one of {', '.join(START_ORDER)}"
            ) from None

    def dead_components(self) -> list[str]:
        """Name the components, and the namespace's gateway, that ought to run and do not."""
        return _dead(self.state)

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """Wait until namespace `default` has its service account: before that, pods are refused."""
        probe, port = Probe(self.namespace, self._admin_token()), self.layout.ports["kube-apiserver"]
        self._wait(
            "kube-controller-manager",
            "the default service account",
            lambda: probe.status(port, _READY_PATH) == 200,
            seconds,
        )

    def service_account_kubeconfig(self, namespace: str, service_account: str) -> Path:
        """Write a kubeconfig with a service account's token (24 h) and return its path."""
        path = self.directory / f"{namespace}-{service_account}.kubeconfig"
        token = self.cluster.token(namespace, service_account)
        write_kubeconfig(path, self.server, self.pki.ca.certificate, token_user(token), namespace)
        return path

    def _refuse_or_clean(self) -> None:
        old = State.load(self.directory)
        if old is None:
            return
        dead = _dead(old)
        if not dead:
            raise StateError(f"{self.directory}: a control plane is up here already ({old.layout.server})")
        self._reporter.say(f"Cleaning up a control plane that is dead ({', '.join(dead)})")
        _end_processes(old)
        clear(self.directory)

    def _prepare(self) -> None:
        ports = dict(zip(PORT_NAMES, free_ports(len(PORT_NAMES), random.SystemRandom()), strict=True))
        layout = Layout(self.directory, ports)
        layout.log("etcd").parent.mkdir()
        namespace = Namespace.create(
            layout.log("etcd").parent, ports["kube-apiserver"], detached=self._detached
        )
        self._state = State(layout, namespace, self._options, self._commands)
        self.state.save()
        self._reporter.say(f"Network: {namespace.describe()}")
        self._write_credentials()

    def _write_credentials(self) -> None:
        layout, pki = self.layout, Pki.create(self.layout.pki.directory)
        hosts = ["127.0.0.1", "localhost", "10.96.0.1"]
        hosts += ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        pki.issue_server("kube-apiserver", hosts)
        pki.issue_client("admin", "kubernetes-admin", ["system:masters"])
        token = secrets.token_urlsafe(32)
        write_private(layout.tokens, f'{token},stowage-admin,stowage-admin,"system:masters"\n'.encode())
        write_kubeconfig(layout.kubeconfig, layout.server, pki.ca.certificate, token_user(token))
        for component in ("kube-controller-manager", "kube-scheduler"):
            user = certificate_user(pki.issue_client(component, f"system:{component}"))
            path = layout.component_kubeconfig(component)
            write_kubeconfig(path, layout.server, pki.ca.certificate, user)

    def _answers(self, component: str) -> bool:
        port = self.layout.ports[component]
        if component == "etcd":
            return Probe(self.namespace).accepts(port)
        if component == "kube-apiserver":
            return Probe(self.namespace, self._admin_token()).status(port, "/readyz") == 200
        return Probe(self.namespace).status(port, "/healthz") == 200

    def _wait(
        self, component: str, what: str, reached: Callable[[], bool], seconds: float = START_SECONDS
    ) -> None:
        deadline = time.monotonic() + seconds
        while not reached():
            if not self.process(component).is_running():
                raise ControlPlaneError(f"{component} ended; its log ends:\n{self._log_tail(component)}")
            if time.monotonic() > deadline:
                raise ControlPlaneError(
                    f"waited {seconds:.0f} s in vain for {what}; {component}: {self._log_tail(component)}"
                )
            time.sleep(0.05)

    def _log_tail(self, component: str, lines: int = 15) -> str:
        try:
            return "\n".join(self.layout.log(component).read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return "(no log)"

    def _admin_token(self) -> str:
        return self.layout.tokens.read_text().partition(",")[0]

    def _end(self) -> None:
        if self._state is not None:
            _end_processes(self._state)
        clear(self.directory)
        self.directory.rmdir()
        self._state = None


def _dead(state: State) -> list[str]:
    expected = {component: state.processes.get(component) for component in START_ORDER}
    if state.namespace.isolated:
        expected["gateway"] = state.namespace.gateway
    return [name for name, process in expected.items() if process is None or not process.is_running()]


def _end_processes(state: State) -> None:
    """End the components in order; where one is dead already, the others wait for it in vain, so at once."""
    hurry = bool(_dead(state))
    for component in STOP_ORDER:
        process = state.processes.get(component)
        if process is not None:
            process.stop(0.0 if hurry else _GRACE_SECONDS[component])
    state.namespace.close()
