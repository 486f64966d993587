"""Notices a watch that has silently stopped: the truth is what a LIST shows.

Every object that a LIST brought in a newer version than the watch had delivered is noted. A living watch delivers that
version, or a later one, within seconds; one that has not after minutes is dead, and only a restart helps.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from stowage.kube.kinds import Kind
from stowage.kube.versions import is_newer


class WatchDied(Exception):
    """A watch delivers nothing any more; the process must end and start again."""


class Watchdog:
    """Compares deliveries with LISTs; times are seconds of any steady clock."""

    def __init__(self, patience_seconds: float) -> None:
        self._patience_seconds = patience_seconds
        self._missing: dict[tuple[Kind, str], tuple[str, float]] = {}

    def listed(self, kind: Kind, updates: Iterable[tuple[str, str]], now: float) -> None:
        """A LIST brought these (uid, resourceVersion), which were news."""
        for uid, version in updates:
            self._missing.setdefault((kind, uid), (version, now))

    def delivered(self, kind: Kind, uid: str, version: str, *, deleted: bool = False) -> None:
        """The watch delivered an object."""
        waiting = self._missing.get((kind, uid))
        if waiting is not None and (deleted or not is_newer(waiting[0], version)):
            del self._missing[kind, uid]

    def keep_only(self, kind: Kind, uids: Collection[str]) -> None:
        """These are all that the server has of a kind: nothing has to be delivered about others."""
        for known, uid in [pair for pair in self._missing if pair[0] == kind and pair[1] not in uids]:
            del self._missing[known, uid]

    def check(self, now: float) -> None:
        """Raises WatchDied when something has been missing for too long."""
        for (kind, _), (_, since) in self._missing.items():
            if now - since > self._patience_seconds:
                raise WatchDied(
                    f"The watch of {kind} has not delivered for {now - since:.0f} s what a LIST shows."
                )
