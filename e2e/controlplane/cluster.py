"""A cluster as its users see it: a kubeconfig, kubectl, and the network that reaches its pods.

It is the same for an own control plane and for an existing cluster, so tests that need no faults run on
both. It must never start or stop anything.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.controlplane.namespace import Namespace

_KUBECTL_SECONDS = 60.0


class KubectlError(Exception):
    """kubectl ended with an error; `stderr` is what it said."""

    def __init__(self, command: Sequence[str], returncode: int, stderr: str) -> None:
        super().__init__(f"kubectl {' '.join(command)} ended with {returncode}: {stderr.strip()}")
        self.stderr = stderr


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster: the administrator's `kubeconfig`, kubectl's command and cache, the pods' network."""

    kubeconfig: Path
    kubectl_command: tuple[str, ...]
    namespace: Namespace
    cache: Path | None = None

    @property
    def variables(self) -> dict[str, str]:
        """The variables that point clients here.

        kubectl remembers what an address serves for hours. An own `cache` keeps it from believing that about
        the next cluster which happens to get the same port.
        """
        cache = {"KUBECACHEDIR": str(self.cache)} if self.cache else {}
        return {"KUBECONFIG": str(self.kubeconfig), **cache}

    @property
    def environment(self) -> dict[str, str]:
        """The caller's environment, pointed here."""
        return {**os.environ, **self.variables}

    def kubectl(
        self,
        *arguments: str,
        input_text: str | None = None,
        check: bool = True,
        timeout_seconds: float = _KUBECTL_SECONDS,
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as the administrator; raises `KubectlError` where it fails, unless `check` is off."""
        result = subprocess.run(
            [*self.kubectl_command, *arguments],
            env=self.environment,
            input=input_text,
            stdin=subprocess.DEVNULL if input_text is None else None,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_seconds,
        )
        if check and result.returncode != 0:
            raise KubectlError(arguments, result.returncode, result.stderr)
        return result

    def get(self, *arguments: str) -> Any:
        """Return what `kubectl get … -o json` prints, parsed."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json").stdout)

    def apply(self, *objects: Mapping[str, Any], namespace: str = "default") -> None:
        """Create or change objects as `kubectl apply` does."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "-n", namespace, "-f", "-", input_text=json.dumps(items))

    def token(self, namespace: str, service_account: str, duration: str = "24h") -> str:
        """Return a new token of a service account."""
        arguments = ("create", "token", service_account, "-n", namespace, f"--duration={duration}")
        return self.kubectl(*arguments).stdout.strip()
