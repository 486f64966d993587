"""What an accuracy check is about, and how its results are told from those of every other check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from stowage.api.v1alpha1 import AccuracySpec
from stowage.engine.accuracy.record import Contender
from stowage.planning.plan import Plan
from stowage.render.canonical import digest

_ID_DIGITS: Final = 40


@dataclass(frozen=True, slots=True)
class Checking:
    """What to check: the contender against the lossless plan, at the commit of the spec's own model."""

    accuracy: AccuracySpec
    contender: Contender
    baseline: Plan | None
    commit: str

    @property
    def words(self) -> str:
        """What is lossy about the contender."""
        return self.contender.plan.lossy or "a lossy plan"

    @property
    def scope(self) -> str:
        """What a result rests on besides the contender."""
        return scope_of(self.accuracy, self.commit)

    @property
    def check_id(self) -> str:
        """Names the comparison; hexadecimal. What recorded answers could not show, a baseline may."""
        parts = [self.contender.plan.accuracy_key(), self.scope, self.baseline is not None]
        return digest(parts, _ID_DIGITS)

    def attempt_id(self, attempts: int) -> str:
        """Names one try of it."""
        return self.check_id if not attempts else digest([self.check_id, attempts], _ID_DIGITS)


def scope_of(accuracy: AccuracySpec, commit: str) -> str:
    """Digest of what a result rests on besides the lossy plan: the model's commit and the prompts."""
    return digest([commit, accuracy.prompts_ref.config_map, accuracy.answer_tokens])
