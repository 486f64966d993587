"""What an accuracy check has measured, small enough for a termination message.

Figures and their bounds only: whether they are good enough is judged by the operator, which knows what loss the user
accepts. Every bound is one-sided at ``confidence``; every drop is a share (0.01 is one percent), negative where the
candidate did better.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar

from stowage_runtime.contract.fields import (
    Record,
    choice,
    defaulted,
    free_text,
    integer,
    nested,
    number,
    optional,
    sequence,
    text,
    wire,
)
from stowage_runtime.contract.termination import MAXIMUM_BYTES

ACCURACY_MEASURED = "AccuracyMeasured"
"""The reason in the termination message of a check that has measured; no failure of the agent has this name."""

_DIGEST = r"[0-9a-f]{64}"


@dataclass(frozen=True)
class AnswerFigures(Record):
    """Answers compared with the expected or recorded ones.

    ``lost`` were right with the baseline and are wrong with the candidate, ``gained`` the other way round;
    ``drop`` is (lost − gained) / compared. ``changed_by_noise`` counts answers for which the baseline's second run
    came to another verdict than its first; None where no baseline ran.
    """

    ignore_unknown_keys: ClassVar[bool] = True

    compared: int = field(metadata=wire(integer(1)))
    baseline_right: int = field(metadata=wire(integer(0)))
    candidate_right: int = field(metadata=wire(integer(0)))
    lost: int = field(metadata=wire(integer(0)))
    gained: int = field(metadata=wire(integer(0)))
    drop: float = field(metadata=wire(number(-1.0, 1.0)))
    drop_low: float = field(metadata=wire(number(-1.0, 1.0)))
    drop_high: float = field(metadata=wire(number(-1.0, 1.0)))
    changed_by_noise: int | None = field(default=None, metadata=wire(optional(integer(0))))


@dataclass(frozen=True)
class LikelihoodFigures(Record):
    """How likely the candidate finds the answers that the baseline gave.

    ``drop`` is 1 − exp(−d) with d the mean over prompts of the mean difference of a token's log-probability (nats)
    between baseline and candidate: the share by which the probability of a token of those answers is lower.
    ``noise`` bounds, in the same unit, how far the baseline differs from itself between two runs.
    """

    ignore_unknown_keys: ClassVar[bool] = True

    prompts: int = field(metadata=wire(integer(1)))
    tokens: int = field(metadata=wire(integer(1)))
    drop: float = field(metadata=wire(number(-1e30, 1.0)))
    drop_low: float | None = field(default=None, metadata=wire(optional(number(-1e30, 1.0))))
    drop_high: float | None = field(default=None, metadata=wire(optional(number(-1e30, 1.0))))
    noise: float | None = field(default=None, metadata=wire(optional(number(0.0, 1e30))))


@dataclass(frozen=True)
class AccuracyReport(Record):
    """The figures of one check; ``prompts_digest`` is the SHA-256 of the prompts that were used."""

    ignore_unknown_keys: ClassVar[bool] = True

    check_id: str = field(metadata=wire(text("8 to 64 hexadecimal digits", r"[0-9a-f]{8,64}", 64)))
    message: str = field(metadata=wire(text("a sentence", maximum_length=1024)))
    prompts: int = field(metadata=wire(integer(1)))
    prompts_digest: str = field(metadata=wire(text("a SHA-256 in hexadecimal digits", _DIGEST, 64)))
    confidence: float = field(metadata=wire(number(0.5, 1.0)))
    engine_kind: str = field(metadata=wire(choice("vllm", "simulated")))
    answers: AnswerFigures | None = field(default=None, metadata=wire(optional(nested(AnswerFigures))))
    likelihood: LikelihoodFigures | None = field(
        default=None, metadata=wire(optional(nested(LikelihoodFigures)))
    )
    notes: tuple[str, ...] = field(
        default=(), metadata=wire(defaulted(sequence(free_text(400), "a list of sentences")))
    )
    reason: str = field(default=ACCURACY_MEASURED, metadata=wire(choice(ACCURACY_MEASURED)))

    def to_line(self) -> str:
        """JSON of at most 4096 bytes; notes are dropped where they do not fit."""
        line = self.to_json()
        return line if len(line) <= MAXIMUM_BYTES else dataclasses.replace(self, notes=()).to_json()
