"""A step's answer: yes, no or not yet, with the documented reason and a sentence."""

from __future__ import annotations

from dataclasses import dataclass

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal


@dataclass(frozen=True, slots=True)
class Verdict:
    """`status` is True (holds), False (refused) or None (not known yet)."""

    status: bool | None
    reason: Reason
    message: str

    @classmethod
    def refused(cls, refusal: Refusal) -> Verdict:
        """The verdict that a refusal amounts to."""
        return cls(False, refusal.reason, refusal.sentence)
