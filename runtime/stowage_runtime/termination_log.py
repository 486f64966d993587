"""Leaves the reason of the container's end where Kubernetes looks for it.

Writing must never hide the failure that it reports: when the file cannot be written, the line still stands in
the log.
"""

from __future__ import annotations

import dataclasses

from stowage_runtime.agent_log import AgentLog
from stowage_runtime.contract import Termination
from stowage_runtime.redaction import Redactor

DEFAULT_PATH = "/dev/termination-log"


class TerminationLog:
    """Writes the termination message of one container."""

    def __init__(self, path: str, redact: Redactor, log: AgentLog) -> None:
        self._path = path
        self._redact = redact
        self._log = log

    def write(self, termination: Termination) -> Termination:
        """Write the message, in the file and in the log; returns what was written, without secrets."""
        details = termination.details and {
            key: self._redact(value) if isinstance(value, str) else value
            for key, value in termination.details.items()
        }
        clean = dataclasses.replace(termination, message=self._redact(termination.message), details=details)
        self._log(f"ending: {clean.reason}: {clean.message}")
        self.write_line(clean.to_line())
        return clean

    def write_line(self, line: str) -> None:
        """Leave one line behind that is not a failure: what a container was made to find out."""
        try:
            with open(self._path, "w", encoding="utf-8") as file:
                file.write(self._redact(line) + "\n")
        except OSError as error:
            self._log(f"the termination message could not be written to {self._path}: {error}")
