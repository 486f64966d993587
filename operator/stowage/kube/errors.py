"""What can go wrong when talking to the API server, as types that callers tell apart.

One small hierarchy for the whole shell, so that no other module looks at status codes or at exceptions of the HTTP
library. An error here never carries a request body or a header: neither tokens nor specs can leak through a log.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


class ApiError(Exception):
    """The API server's answer was not the one that was asked for.

    `status` is the HTTP status (0 when there was no answer), `reason` the machine-readable word of the Status
    object, `message` its sentence for people.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}" if status else f"{reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class NotFound(ApiError):
    """No such object, or no such kind."""


class Conflict(ApiError):
    """Another object or version is there than the request expected (uid or resourceVersion)."""


class AlreadyExists(Conflict):
    """A create met an object of that name."""


class Forbidden(ApiError):
    """Refused by authorization, by a quota or by an admission plugin."""


class Unauthorized(ApiError):
    """The credentials were not accepted."""


class Invalid(ApiError):
    """The object was refused by validation; trying again with the same content is of no use.

    `fields` are the paths that the server names as the causes (`spec.ports[1].name`).
    """

    def __init__(self, status: int, reason: str, message: str, fields: tuple[str, ...] = ()) -> None:
        super().__init__(status, reason, message)
        self.fields = fields


class Gone(ApiError):
    """A continue token or a resourceVersion is too old."""


class Throttled(ApiError):
    """The server asks to come back after `retry_after` seconds."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float = 1.0) -> None:
        super().__init__(status, reason, message)
        self.retry_after = retry_after


class Unreachable(ApiError):
    """No usable answer: connection refused or lost, a timeout, or a 5xx."""


_BY_STATUS: Mapping[int, type[ApiError]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    413: Invalid,
    415: Invalid,
    422: Invalid,
}


def error_from_response(status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    """The typed error for an answer outside 2xx; a body that is no Status object is quoted, shortened."""
    answer = _status_object(body)
    reason = str(answer.get("reason") or "")
    message = str(answer.get("message") or body[:200].decode("utf-8", "replace"))
    if status == 429:
        return Throttled(status, reason or "TooManyRequests", message, _retry_after(headers))
    if status == 409 and reason == "AlreadyExists":
        return AlreadyExists(status, reason, message)
    fields = _refused_fields(answer)
    if status == 422 and "metadata.uid" in fields:
        # An apply with the uid of an object that was replaced meanwhile: the server calls that invalid.
        return Conflict(status, reason, message)
    kind = _BY_STATUS.get(status, Unreachable if status >= 500 else ApiError)
    if kind is Invalid:
        return Invalid(status, reason or kind.__name__, message, fields)
    return kind(status, reason or kind.__name__, message)


def _status_object(body: bytes) -> Mapping[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _refused_fields(answer: Mapping[str, Any]) -> tuple[str, ...]:
    causes = (answer.get("details") or {}).get("causes") or ()
    return tuple(str(cause["field"]) for cause in causes if cause.get("field"))


def _retry_after(headers: Mapping[str, str]) -> float:
    try:
        return max(0.0, float(headers.get("Retry-After", "1")))
    except ValueError:
        return 1.0
