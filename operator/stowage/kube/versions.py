"""Order of resourceVersions.

Kubernetes guarantees since 1.35 that they may be compared as whole numbers within one kind. Where a server writes
something else, two different versions count as "newer": a level-triggered reader may look twice, but never miss.
"""

from __future__ import annotations


def is_newer(candidate: str, known: str) -> bool:
    """Whether `candidate` is a later version than `known`; equal ones are not."""
    if candidate == known:
        return False
    if candidate.isdecimal() and known.isdecimal():
        return int(candidate) > int(known)
    return True
