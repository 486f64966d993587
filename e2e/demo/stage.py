"""How the demo speaks: numbered scenes, plain sentences, and the real commands with their real output."""

from __future__ import annotations

import contextlib
import subprocess
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from e2e.controlplane.cluster import Cluster

_POLL_SECONDS = 0.5
_WIDEST = 120


class DemoFailed(Exception):
    """Something did not happen that the demo promises."""


@dataclass(slots=True)
class Stage:
    """Prints scenes and runs commands against one cluster."""

    cluster: Cluster
    console: Console = field(default_factory=lambda: Console(highlight=False, soft_wrap=True))
    scene_number: int = 0

    def scene(self, title: str) -> None:
        """Begin a numbered scene."""
        self.scene_number += 1
        self.console.print()
        heading = f"{self.scene_number}. {title}"
        self.console.print(heading, style="bold", markup=False)
        self.console.print("─" * len(heading), style="bold", markup=False)

    def say(self, text: str) -> None:
        """A sentence for the audience."""
        self.console.print(text, style="cyan")

    def kubectl(self, *arguments: str, input_text: str | None = None, refused_is_fine: bool = False) -> str:
        """Run kubectl, showing the command, what it read on stdin and what it printed."""
        self.console.print(f"$ kubectl {' '.join(arguments)}", style="bold", markup=False)
        if input_text is not None:
            self.console.print(textwrap.indent(input_text.rstrip(), "    "), style="dim", markup=False)
        result = self.cluster.kubectl(*arguments, input_text=input_text, check=not refused_is_fine)
        # "No resources found" and the like are not on stdout, and are the answer.
        output = result.stdout if result.stdout.strip() else result.stderr
        self.console.print(output.rstrip(), markup=False)
        return output

    def show(self, title: str, text: str) -> None:
        """Show a block of text in a frame."""
        width = min(self.console.width, _WIDEST)
        panel = Panel(Text(text.rstrip()), title=title, title_align="left", width=width)
        self.console.print(panel, soft_wrap=False)

    @contextlib.contextmanager
    def watching(self, *arguments: str) -> Iterator[None]:
        """Show what `kubectl … --watch` prints while the body runs."""
        self.console.print(f"$ kubectl {' '.join(arguments)} --watch", style="bold", markup=False)
        command = [*self.cluster.kubectl_command, *arguments, "--watch"]
        watch = subprocess.Popen(
            command,
            env=self.cluster.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        reader = threading.Thread(target=self._relay, args=(watch,), daemon=True)
        reader.start()
        try:
            yield
            time.sleep(1.0)  # the last change is still on its way through the watch
        finally:
            watch.terminate()
            watch.wait(timeout=10)
            reader.join(timeout=10)

    def _relay(self, watch: subprocess.Popen[str]) -> None:
        shown = ""
        for line in watch.stdout or ():
            columns = line.rpartition("   ")[0].rstrip()
            # A change that none of the columns shows prints the same row once more, only older.
            if columns != shown:
                self.console.print(f"  {line.rstrip()}", markup=False)
            shown = columns

    def wait(self, what: str, reached: Callable[[], Any], seconds: float) -> Any:
        """Wait for something, at most `seconds`; raises `DemoFailed` with what was waited for."""
        deadline = time.monotonic() + seconds
        while not (value := reached()):
            if time.monotonic() > deadline:
                raise DemoFailed(f"waited {seconds:.0f} s in vain for {what}")
            time.sleep(_POLL_SECONDS)
        return value
