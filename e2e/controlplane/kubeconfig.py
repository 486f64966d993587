"""Write kubeconfig files, readable by their owner only, with the certificates inside.

JSON is valid YAML, so no YAML library is needed. A credential must never be printed or logged from here.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from e2e.controlplane.pki import KeyPair, write_private


def token_user(token: str) -> dict[str, str]:
    """Return the kubeconfig user of a bearer token."""
    return {"token": token}


def certificate_user(pair: KeyPair) -> dict[str, str]:
    """Return the kubeconfig user of a client certificate."""
    return {"client-certificate-data": _encoded(pair.certificate), "client-key-data": _encoded(pair.key)}


def write_kubeconfig(
    path: Path, server: str, authority: Path, user: Mapping[str, str], namespace: str = "default"
) -> None:
    """Write a kubeconfig of one cluster, one user and one context, all called `stowage`, with mode 0600."""
    content: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "stowage",
                "cluster": {"server": server, "certificate-authority-data": _encoded(authority)},
            }
        ],
        "users": [{"name": "stowage", "user": dict(user)}],
        "contexts": [
            {"name": "stowage", "context": {"cluster": "stowage", "user": "stowage", "namespace": namespace}}
        ],
        "current-context": "stowage",
    }
    write_private(path, json.dumps(content, indent=1).encode() + b"\n")


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
