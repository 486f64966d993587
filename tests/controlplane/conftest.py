from __future__ import annotations

from e2e.controlplane.fixtures import (
    cluster,
    control_plane,
    kubectl,
    namespace,
    own_or_existing,
)

__all__ = ["cluster", "control_plane", "kubectl", "namespace", "own_or_existing"]
