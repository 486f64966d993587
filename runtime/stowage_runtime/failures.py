"""The exceptions by which a part of the agent says that the container must end, or that the engine has.

They carry what goes into the termination message. Nothing here decides or writes anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stowage_runtime.contract import Termination


class AgentFailure(Exception):
    """The container must end, for a documented reason."""

    def __init__(self, reason: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.termination = Termination(reason=reason, message=message, details=details or None)


class StopRequested(Exception):
    """Somebody sent SIGTERM or SIGINT; the container ends with success."""


class EngineEnded(Exception):
    """The engine's process ended by itself; ``returncode`` is negative for a signal."""

    def __init__(self, returncode: int) -> None:
        super().__init__(f"engine ended with {returncode}")
        self.returncode = returncode
