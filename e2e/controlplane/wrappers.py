"""Small commands for an ordinary shell: `kubectl`, `curl` and `in-cluster`, in a directory to put on PATH.

kubectl needs no namespace, because the API server's port is relayed. curl enters it only for addresses of
pods and Services, so that the rest of the internet stays reachable. `in-cluster CMD …` runs anything
inside. These files must hold no credential.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from e2e.controlplane.cluster import Cluster

_CURL = """\
case " $* " in
  *10.244.*|*10.96.*) exec {directory}/in-cluster {curl} "$@" ;;
esac
exec {curl} "$@"
"""


def write_wrappers(directory: Path, cluster: Cluster) -> None:
    """Write the commands for one cluster into `directory`, which is created."""
    directory.mkdir(exist_ok=True)
    kubectl = f'{_exports(cluster)}exec {_words(cluster.kubectl_command)} "$@"\n'
    _write(directory / "kubectl", kubectl)
    _write(directory / "in-cluster", f'exec {_words(cluster.namespace.wrap(()))} "$@"\n')
    elsewhere = [entry for entry in os.environ.get("PATH", "").split(os.pathsep) if entry != str(directory)]
    curl = shutil.which("curl", path=os.pathsep.join(elsewhere))
    if curl is not None and cluster.namespace.isolated:
        _write(
            directory / "curl", _CURL.format(directory=shlex.quote(str(directory)), curl=shlex.quote(curl))
        )


def shell_lines(directory: Path, cluster: Cluster) -> str:
    """Return the lines that an ordinary shell evaluates in order to use the cluster."""
    network = " ".join(cluster.namespace.describe().split())
    return f'# network: {network}\n{_exports(cluster)}export PATH={shlex.quote(str(directory))}:"$PATH"\n'


def _exports(cluster: Cluster) -> str:
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in cluster.variables.items())


def _words(words: Sequence[str]) -> str:
    return " ".join(shlex.quote(word) for word in words)


def _write(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}")
    path.chmod(0o755)
