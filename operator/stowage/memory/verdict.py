"""From the terms of a rank to Fits, Tight or DoesNotFit, with the sentence that says why.

Each check is a margin in bytes: what is there less what is needed, at both ends of the band. It does not fit when
even the optimistic end is short, and it is tight when only the pessimistic end is: a refusal must not be wrong,
and a promise must hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stowage.api.refusal import Refusal
from stowage.memory.ledger import Verdict


@dataclass(frozen=True, slots=True)
class Margin:
    """One check: spare bytes at both ends of the band, and how to say that they do not suffice.

    Sentences are made on demand, since most ledgers need none.
    """

    optimistic_bytes: int
    pessimistic_bytes: int
    refuse: Callable[[], Refusal]


def judge(margins: Sequence[Margin]) -> tuple[Verdict, Refusal | None, str | None]:
    """Give the verdict, the refusal of the first failed check, and the caution of the first tight one."""
    for margin in margins:
        if margin.optimistic_bytes < 0:
            return "DoesNotFit", margin.refuse(), None
    for margin in margins:
        if margin.pessimistic_bytes < 0:
            return "Tight", None, f"Within the uncertainty of the estimate: {margin.refuse().message}"
    return "Fits", None, None
