"""Who may see what: the refusals of the Hub in its own words.

Why: its client tells "missing", "gated" and "wrong token" apart by status and error code.
Facts: `huggingface_hub/utils/_http.py`, `hf_raise_for_status`. An anonymous request for a missing
repository is answered 401 by the Hub, which cannot be told from a private one; the client reads the error
code.
It must never say in an answer which tokens would have been right.
"""

from __future__ import annotations

from e2e.hub.answers import Answer, RefusalError, error
from e2e.hub.faults import Fault

INVALID_TOKEN = error(401, "", "Invalid credentials in Authorization header")


def missing_repository(token: str) -> Answer:
    """Return what a missing repository, or a private one to a stranger, is answered."""
    if not token:
        return error(401, "RepoNotFound", "Invalid username or password.")
    return error(404, "RepoNotFound", "Repository not found")


def check(fault: Fault | None, token: str, *, is_file: bool) -> None:
    """Raise the `RefusalError` that `fault` means for this request, if any."""
    if fault is None:
        return
    granted = token in fault.tokens
    if fault.kind == "gated" and is_file and not granted:
        raise RefusalError(_gated(token))
    if fault.kind == "private" and not granted:
        raise RefusalError(missing_repository(token))
    if answer := _always(fault):
        raise RefusalError(answer)


def _always(fault: Fault) -> Answer | None:
    if fault.kind == "not_found":
        return error(404, "RepoNotFound", "Repository not found")
    if fault.kind == "unauthorized":
        return INVALID_TOKEN
    if fault.kind == "rate_limited":
        limits = {
            "Retry_After": str(fault.retry_after_seconds),
            "RateLimit": f'"api";r=0;t={fault.retry_after_seconds}',
        }
        return error(429, "", "We had to rate limit you", **limits)
    if fault.kind == "server_error":
        return error(500, "", "Internal Error - We're working hard to fix this as soon as possible!")
    return None


def _gated(token: str) -> Answer:
    if not token:
        return error(
            401,
            "GatedRepo",
            "Access to this model is restricted. You must have access to it and be authenticated.",
        )
    return error(
        403, "GatedRepo", "Access to this model is restricted and you are not in the authorized list."
    )
