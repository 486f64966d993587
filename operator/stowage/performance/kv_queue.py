"""Requests that wait because the KV cache is full: how many run, how many would, and what that costs them in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

NOTABLE: Final = 0.05
"""Share of the time that requests wait for room in the KV cache, from which that is what limits the batch."""


@dataclass(frozen=True, slots=True)
class KvQueue:
    """A replica that is asked for `asked` requests at once and has room in its KV cache for `fit` of them.

    `share` is the part of the requests in flight that wait for room, which is the part of their time that they do.
    """

    fit: float
    asked: float
    share: float

    @property
    def sentence(self) -> str:
        """Say it in whole requests, of which fewer fit than are asked for."""
        asked = max(2, round(self.asked))
        fit = min(max(1, round(self.fit)), asked - 1)
        return (
            f"Requests wait for KV memory: {fit:,} fit of {asked:,} asked ({self.share:.0%} of their time)."
        )


def kv_queue(fit: float, asked: float, share: float) -> KvQueue | None:
    """Give the queue where it is worth a word, else None."""
    return KvQueue(fit, asked, share) if share > NOTABLE else None
