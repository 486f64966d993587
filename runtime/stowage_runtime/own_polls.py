"""Tells the access-log lines of the agent's own polls from everybody else's.

The agent asks the engine for its health and its metrics every few seconds, from the pod's own address. Those
lines would bury what people read the log for; requests from anywhere else stay in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable


def own_poll_filter(host: str) -> Callable[[str], bool]:
    """Return a predicate that is true for a successful poll from ``host`` in uvicorn's access-log format."""
    pattern = re.compile(
        r"INFO:\s+" + re.escape(host) + r':\d+ - "GET /(?:health|metrics|version) HTTP/1\.\d" 200\b'
    )
    return lambda line: pattern.search(line) is not None
