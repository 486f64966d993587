"""Waiting for a state, bounded, with an explanation when it does not come."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_SECONDS = 180.0
_POLL_SECONDS = 0.15


def wait_until(
    reached: Callable[[], T],
    what: str,
    seconds: float = PATIENCE_SECONDS,
    explain: Callable[[], str] = lambda: "",
) -> T:
    """Ask until the answer is true and give it; fails the test with `explain()` when it takes too long.

    An API server that is away for a moment is asked again.
    """
    deadline = time.monotonic() + seconds
    while True:
        trouble = ""
        try:
            if value := reached():
                return value
        except OSError as error:
            trouble = f" ({error})"
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}{trouble}\n{explain()}"
        time.sleep(_POLL_SECONDS)
