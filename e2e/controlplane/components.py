"""The command line of each component: pure, from a layout of paths and ports to arguments.

Everything binds to 127.0.0.1. Nothing here may start a process or touch a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from e2e.controlplane.namespace import SERVICE_NETWORK
from e2e.controlplane.pki import Pki

START_ORDER = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
STOP_ORDER = tuple(reversed(START_ORDER))
PORT_NAMES = ("etcd", "etcd-peer", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Options:
    """What a user of the control plane may choose.

    `node_monitor_grace_period` (a Go duration, `24h`) is for scale tests whose nodes renew no Lease; None
    leaves Kubernetes' default. `extra_arguments` are appended to a component's own, so that they win.
    """

    node_monitor_grace_period: str | None = None
    extra_arguments: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where one control plane keeps its files, and which ports it listens on."""

    directory: Path
    ports: Mapping[str, int]

    @property
    def pki(self) -> Pki:
        """The certificate authority of this control plane."""
        return Pki(self.directory / "pki")

    @property
    def server(self) -> str:
        """The API server's address, the same inside and outside of the namespace."""
        return f"https://{LOOPBACK}:{self.ports['kube-apiserver']}"

    @property
    def tokens(self) -> Path:
        """The file of static tokens: the administrator's."""
        return self.directory / "pki" / "tokens.csv"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.directory / "kubeconfig"

    def component_kubeconfig(self, component: str) -> Path:
        """Return the kubeconfig with which a component talks to the API server."""
        return self.directory / "pki" / f"{component}.kubeconfig"

    def log(self, component: str) -> Path:
        """Return the file that a component's output is appended to."""
        return self.directory / "logs" / f"{component}.log"


def arguments(component: str, layout: Layout, options: Options) -> list[str]:
    """Return the arguments of one component."""
    own = {
        "etcd": _etcd,
        "kube-apiserver": _apiserver,
        "kube-controller-manager": _controller_manager,
        "kube-scheduler": _scheduler,
    }[component](layout, options)
    return [*own, *options.extra_arguments.get(component, ())]


def _etcd(layout: Layout, _: Options) -> list[str]:
    client = f"http://{LOOPBACK}:{layout.ports['etcd']}"
    peer = f"http://{LOOPBACK}:{layout.ports['etcd-peer']}"
    return [
        "--name=local",
        f"--data-dir={layout.directory / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=local={peer}",
        "--unsafe-no-fsync",  # the data is thrown away
        "--quota-backend-bytes=4294967296",
        "--log-level=warn",
    ]


def _apiserver(layout: Layout, _: Options) -> list[str]:
    pki = layout.pki
    serving, kubelet_client = pki.pair("kube-apiserver"), pki.pair("admin")
    return [
        f"--etcd-servers=http://{LOOPBACK}:{layout.ports['etcd']}",
        f"--bind-address={LOOPBACK}",
        f"--advertise-address={LOOPBACK}",
        f"--secure-port={layout.ports['kube-apiserver']}",
        # the default would publish 127.0.0.1 as endpoint of Service `kubernetes`, which validation refuses
        "--endpoint-reconciler-type=none",
        f"--tls-cert-file={serving.certificate}",
        f"--tls-private-key-file={serving.key}",
        f"--client-ca-file={pki.ca.certificate}",
        f"--token-auth-file={layout.tokens}",
        "--authorization-mode=Node,RBAC",
        "--anonymous-auth=false",
        f"--service-account-issuer={layout.server}",
        f"--service-account-key-file={pki.service_account_public_key}",
        f"--service-account-signing-key-file={pki.service_account_key}",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
        "--allow-privileged=true",
        f"--kubelet-client-certificate={kubelet_client.certificate}",
        f"--kubelet-client-key={kubelet_client.key}",
        "--kubelet-preferred-address-types=InternalIP",
        "--profiling=false",
    ]


def _controller_manager(layout: Layout, options: Options) -> list[str]:
    grace = options.node_monitor_grace_period
    return [
        *_client("kube-controller-manager", layout),
        f"--service-account-private-key-file={layout.pki.service_account_key}",
        f"--root-ca-file={layout.pki.ca.certificate}",
        "--use-service-account-credentials=true",
        *([f"--node-monitor-grace-period={grace}"] if grace else []),
    ]


def _scheduler(layout: Layout, _: Options) -> list[str]:
    return _client("kube-scheduler", layout)


def _client(component: str, layout: Layout) -> list[str]:
    kubeconfig = layout.component_kubeconfig(component)
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--leader-elect=false",
        f"--bind-address={LOOPBACK}",
        f"--secure-port={layout.ports[component]}",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
        "--profiling=false",
    ]
