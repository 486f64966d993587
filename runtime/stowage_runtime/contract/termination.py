"""The one line that a container leaves behind when it ends by itself.

Kubernetes keeps at most 4096 bytes of it in the pod's status; the operator turns it into a condition. It must
never carry a secret, and its reason always comes from the documented table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from stowage_runtime.contract.fields import Record, choice, json_object, optional, text, wire
from stowage_runtime.contract.reasons import TERMINATION_REASONS

MAXIMUM_BYTES = 4096


@dataclass(frozen=True)
class Termination(Record):
    """Why the container ended: a documented reason, one sentence, and the engine's own figures.

    ``details`` has camelCase keys with the unit in the name, for example ``estimatedMaxModelLen`` (tokens) or
    ``kvNeededBytes``; which keys appear depends on the reason.
    """

    ignore_unknown_keys: ClassVar[bool] = True

    reason: str = field(metadata=wire(choice(*TERMINATION_REASONS)))
    message: str = field(metadata=wire(text("a sentence", maximum_length=MAXIMUM_BYTES)))
    details: Mapping[str, Any] | None = field(
        default=None, metadata=wire(optional(json_object("an object with the engine's own figures")))
    )

    def to_line(self) -> str:
        """JSON of at most 4096 bytes: details are dropped first, then the end of the message."""
        line = self.to_json()
        if len(line) <= MAXIMUM_BYTES:
            return line
        bare = dataclasses.replace(self, details=None)
        message = self.message
        line = bare.to_json()
        while len(line) > MAXIMUM_BYTES:
            message = message[: len(message) * 9 // 10]
            line = dataclasses.replace(bare, message=message + "…").to_json()
        return line
