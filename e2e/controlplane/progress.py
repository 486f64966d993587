"""Say what takes long, how long it should take, and how far it is: a bar on a terminal, lines elsewhere.

Every step that lasts more than a few seconds goes through here. It must never write to stdout, which
belongs to the commands' results.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

_LINE_EVERY_SECONDS = 20.0


@dataclass(slots=True)
class Step:
    """One running step: `update` moves it forward; without a bar and a stream it is silent."""

    title: str
    started: float
    bar: Progress | None
    stream: TextIO | None
    printed: float = 0.0

    def update(self, detail: str, done: float | None = None, total: float | None = None) -> None:
        """Show what is being done now, and how much of how much is done where that is known."""
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], detail=detail, completed=done, total=total)
            return
        if self.stream is None:
            return
        elapsed = time.monotonic() - self.started
        if elapsed - self.printed >= _LINE_EVERY_SECONDS:
            self.printed = elapsed
            amount = f" {done:.0f}/{total:.0f}" if done is not None and total else ""
            print(f"    {elapsed:4.0f} s{amount} {detail}", file=self.stream, flush=True)


@dataclass(frozen=True, slots=True)
class Reporter:
    """Shows steps on `stream` (stderr by default); `quiet` shows nothing."""

    quiet: bool = False
    stream: TextIO = field(default_factory=lambda: sys.stderr)

    def say(self, line: str) -> None:
        """Print one line."""
        if not self.quiet:
            print(line, file=self.stream, flush=True)

    @contextlib.contextmanager
    def step(self, title: str, expected: str) -> Iterator[Step]:
        """Announce a step with its expected duration, and say how long it took when it has succeeded."""
        started = time.monotonic()
        self.say(f"{title} (expected: {expected})")
        if self.quiet or not self.stream.isatty():
            yield Step(title, started, None, None if self.quiet else self.stream)
        else:
            columns = (SpinnerColumn(), BarColumn(), TextColumn("{task.fields[detail]}"), TimeElapsedColumn())
            with Progress(*columns, console=Console(file=self.stream), transient=True) as bar:
                bar.add_task(title, total=None, detail="")
                yield Step(title, started, bar, self.stream)
        self.say(f"  done in {time.monotonic() - started:.1f} s")
