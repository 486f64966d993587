"""Turns what goes wrong between the agent and the Hub into documented reasons.

huggingface_hub changed its HTTP library between versions, so exceptions are told apart by status code and by
name, and never by type: the agent must run with whichever version the image has.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

_UNREACHABLE_NAMES = (
    "Connect",
    "Timeout",
    "ConnectionError",
    "ProxyError",
    "NetworkError",
    "ProtocolError",
    "SSLError",
)
_LONGEST_MESSAGE = 600


@dataclass(frozen=True)
class HubProblem:
    """A failed attempt: the documented reason, one sentence, and whether another attempt can help.

    ``retry_after_seconds`` is what the Hub asked for, if it did.
    """

    reason: str
    message: str
    retryable: bool = False
    retry_after_seconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def problem_of_status(
    status: int, what: str, has_token: bool, headers: Mapping[str, str] | None = None
) -> HubProblem | None:
    """Explain an HTTP status; None for one that is no error. ``what`` names what was asked for."""
    if status in (401, 403):
        token = "the token of tokenSecretRef has no access to it" if has_token else "no token was given"
        message = (
            f"The Hub answered {status} for {what}: it is gated or private, or does not exist, and {token}."
        )
        return HubProblem("ModelAccessDenied", message)
    if status == 404:
        return HubProblem("ModelNotFound", f"The Hub has no {what} (404).")
    if status == 429 or status >= 500:
        message = f"The Hub answered {status} for {what}."
        return HubProblem(
            "HubRateLimited", message, retryable=True, retry_after_seconds=_retry_after(headers)
        )
    if status >= 400:
        return HubProblem("ModelFetchFailed", f"The Hub answered {status} for {what}.")
    return None


def problem_of_exception(error: BaseException, what: str, has_token: bool) -> HubProblem:
    """Explain an exception of huggingface_hub, of its HTTP library, or of the file system."""
    chain = list(_chain(error))
    for link in chain:
        response = getattr(link, "response", None)
        status = getattr(response, "status_code", None)
        if isinstance(status, int):
            problem = problem_of_status(status, what, has_token, getattr(response, "headers", None))
            if problem is not None:
                return problem
    for link in chain:
        if isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EDQUOT):
            return HubProblem("DiskFull", f"The volume for models is full while fetching {what}.")
    if any(_is_unreachable(link) for link in chain):
        cause = " ".join(str(chain[-1]).split())[:_LONGEST_MESSAGE]
        return HubProblem("HubUnreachable", f"The Hub cannot be reached for {what}: {cause}", retryable=True)
    cause = " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST_MESSAGE]
    return HubProblem("ModelFetchFailed", f"{what} could not be fetched: {cause}")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_unreachable(error: BaseException) -> bool:
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    names = [kind.__name__ for kind in type(error).__mro__]
    return any(mark in name for name in names for mark in _UNREACHABLE_NAMES)


def _retry_after(headers: Mapping[str, str] | None) -> float | None:
    lower = {name.lower(): value for name, value in headers.items()} if headers is not None else {}
    value = lower.get("retry-after")
    try:
        return max(0.0, float(value)) if value is not None else None
    except ValueError:
        return None
