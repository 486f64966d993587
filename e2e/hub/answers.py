"""What the hub answers: a status, headers and either bytes or a file, possibly with a fault on it.

Why: routes decide what to say, the server how to send it; faults on content act while sending.
It must never hold the content of a large file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from e2e.hub.faults import Fault
from e2e.hub.repository import HubFile


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; `content` is what a GET would get, of `size_bytes` bytes."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | HubFile = b""
    fault: Fault | None = None

    @property
    def size_bytes(self) -> int:
        """Length of the whole content."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.size_bytes

    @property
    def ranges(self) -> bool:
        """Whether a part of the content may be asked for."""
        return isinstance(self.content, HubFile)

    @classmethod
    def of_json(cls, value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
        """Return a JSON answer."""
        content = json.dumps(value).encode()
        return cls(status, {"Content-Type": "application/json; charset=utf-8", **(headers or {})}, content)


class RefusalError(Exception):
    """A route ends here with this answer instead."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"HTTP {answer.status}")
        self.answer = answer


def error(status: int, code: str, message: str, **headers: str) -> Answer:
    """Return an error as the Hub words it: `code` and `message` in the headers that its client reads."""
    named = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    extra = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer.of_json({"error": message}, status, named | extra)
