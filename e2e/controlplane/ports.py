"""Choose free TCP ports that no outgoing connection can take meanwhile.

The kernel gives outgoing connections ports of its ephemeral range, so a server that is restarted could find
its port taken by a client. These ports lie below that range. This module must never keep a port open.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

_FIRST, _LAST = 20000, 32767
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


class NoFreePort(Exception):
    """Every port of the range is in use."""


def free_ports(count: int, rng: random.Random) -> list[int]:
    """Return `count` different ports of 127.0.0.1 on which nobody listens now; raises `NoFreePort`."""
    candidates = list(range(_FIRST, min(_LAST, _ephemeral_start()) or _LAST))
    rng.shuffle(candidates)
    found: list[int] = []
    for port in candidates:
        if len(found) == count:
            return found
        if _is_free(port):
            found.append(port)
    raise NoFreePort(f"fewer than {count} free ports between {_FIRST} and {_LAST} on 127.0.0.1")


def _ephemeral_start() -> int:
    try:
        start = int(_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return _LAST
    return start if start > _FIRST + 1000 else _LAST


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
