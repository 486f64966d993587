"""A refusal: the value that every part of Stowage returns instead of raising when something cannot be done.

Exceptions are kept for bugs and IO. A refusal carries a reason from the documented list, so that the same
words reach the command line, the conditions of the custom resource and the events.
"""

from __future__ import annotations

from dataclasses import dataclass

from stowage.api.conditions import Reason


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why something cannot be done: a documented reason, one sentence, and what to do about it."""

    reason: Reason
    message: str
    hint: str = ""

    @property
    def sentence(self) -> str:
        """The message with its hint, as people read it."""
        return f"{self.message} {self.hint}".strip()
