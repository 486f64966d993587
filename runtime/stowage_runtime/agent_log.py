"""The agent's own log: plain lines on stderr, apart from the engine's lines on stdout.

Every line goes through the redactor. It must never fail: a closed stderr ends nothing.
"""

from __future__ import annotations

import contextlib
import sys
import time

from stowage_runtime.redaction import Redactor


class AgentLog:
    """Writes one line per message, with UTC time and a fixed mark that tells it from vLLM's lines."""

    def __init__(self, redact: Redactor) -> None:
        self._redact = redact

    def __call__(self, message: str) -> None:
        """Write one message; line breaks inside it are kept out."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = " ".join(self._redact(message).split())
        with contextlib.suppress(OSError, ValueError):
            print(f"{stamp} stowage-agent: {line}", file=sys.stderr, flush=True)
