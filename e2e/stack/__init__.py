"""Everything that the demo and the end-to-end tests run: control plane, nodes, Hub, operator, in one network."""

from __future__ import annotations

from e2e.stack.stack import Stack, StackError

__all__ = ["Stack", "StackError"]
