"""The failures of the real Hub that a repository can be told to have.

Why: an operator's behaviour under refusal, overload and silence is what its users meet first.
Faults are set per repository while the server runs (`Hub.set_fault`, or `PUT /control/faults/ORG/NAME`).
They must never be answered otherwise than the real Hub does: status, headers and error codes are its own.
"""

from __future__ import annotations

import fnmatch
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

KINDS = {
    "gated": "files only for `tokens`: 401 without a token, 403 with another one; listings stay public",
    "private": "everything only for the tokens in `tokens`: looks like a missing repository to others",
    "not_found": "404 as for a repository that does not exist",
    "unauthorized": "401 as for an invalid token",
    "rate_limited": "429 with Retry-After",
    "server_error": "500",
    "slow": "file content at `bytes_per_second`",
    "hang": "no answer until the client gives up or the server stops",
    "cut": "file content ends after `bytes_per_request`, the connection is closed",
}
"""Kind → what the client sees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault. `times` 0 means always; `files` limits it to file requests that match the pattern."""

    kind: str
    times: int = 0
    files: str = ""
    tokens: tuple[str, ...] = ()
    retry_after_seconds: int = 1
    bytes_per_second: int = 1 << 20
    bytes_per_request: int = 1 << 16

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"fault kind {self.kind!r} is unknown: use one of {', '.join(KINDS)}")

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Fault:
        """Return a fault from its JSON object; `ValueError` names what is wrong."""
        known = {field.name for field in fields(cls)}
        if unknown := set(content) - known:
            raise ValueError(f"fault has unknown fields {sorted(unknown)}: use {sorted(known)}")
        if "kind" not in content:
            raise ValueError(f"fault has no kind: use one of {', '.join(KINDS)}")
        return cls(**{**content, "tokens": tuple(content.get("tokens", ()))})


class Faults:
    """The faults in force by repository, safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: dict[str, Fault] = {}
        self._used: dict[str, int] = {}

    def set(self, repo_id: str, fault: Fault | None) -> None:
        """Put `fault` in force for a repository (None: none)."""
        with self._lock:
            self._used[repo_id] = 0
            if fault is None:
                self._faults.pop(repo_id, None)
            else:
                self._faults[repo_id] = fault

    def take(self, repo_id: str, file: str | None) -> Fault | None:
        """Return the fault that this request meets, counted; `file` is None for listings."""
        with self._lock:
            fault = self._faults.get(repo_id)
            if fault is None or (fault.files and (file is None or not fnmatch.fnmatch(file, fault.files))):
                return None
            if fault.kind in ("slow", "cut") and file is None:
                return None
            self._used[repo_id] += 1
            return None if 0 < fault.times < self._used[repo_id] else fault

    def to_json(self) -> dict[str, Any]:
        """All faults in force as JSON objects by repository."""
        with self._lock:
            return {repo_id: asdict(fault) for repo_id, fault in self._faults.items()}
