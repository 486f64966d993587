"""What all tests share: one control plane per test process (see `e2e.controlplane.fixtures`)."""

from __future__ import annotations

pytest_plugins = ["e2e.controlplane.fixtures"]
