"""What went wrong at the Hub, as a refusal: one documented reason and one sentence for each kind of failure.

The Hub answers 401 both for models that do not exist and for private ones, so those two share a reason whose hint
names both. Nothing that a token could be read from goes into a message.
"""

from __future__ import annotations

import httpx2
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from stowage.api.reason_docs import REASON_DOCS
from stowage.api.reasons import Reason
from stowage.api.refusal import Refusal

HUB_FAILURES = (HfHubHTTPError, HFValidationError, httpx2.HTTPError, OSError)
"""The exceptions that a call to the Hub may end with and that `hub_refusal` explains."""


def hub_refusal(error: Exception, repo_id: str, revision: str | None) -> Refusal:
    """Explain a failed call to the Hub."""
    if isinstance(error, HFValidationError):
        message = f"{repo_id!r} is not the name of a model on the Hub."
        return Refusal(Reason.INVALID_SPEC, message, "Write it as hf://organisation/name.")
    if isinstance(error, GatedRepoError):
        message = f"The Hub refuses access to {repo_id}: the model is gated."
        return _refusal(Reason.MODEL_ACCESS_DENIED, message)
    if isinstance(error, RepositoryNotFoundError):
        return _refusal(Reason.MODEL_NOT_FOUND, f"The Hub has no model {repo_id}.")
    if isinstance(error, RevisionNotFoundError):
        return _refusal(Reason.REVISION_NOT_FOUND, f"The model {repo_id} has no revision {revision}.")
    if isinstance(error, HfHubHTTPError):
        return _by_status(error.response, repo_id)
    kind = type(error).__name__
    return _refusal(Reason.HUB_UNREACHABLE, f"The Hub could not be reached for {repo_id} ({kind}).")


def _by_status(response: httpx2.Response, repo_id: str) -> Refusal:
    status = response.status_code
    if status == 429:
        wait = response.headers.get("Retry-After")
        after = f"; it asks to wait {wait} seconds" if wait else ""
        return _refusal(Reason.HUB_RATE_LIMITED, f"The Hub answers 429 for {repo_id}{after}.")
    if status in (401, 403):
        return _refusal(Reason.MODEL_ACCESS_DENIED, f"The Hub answers {status} for {repo_id}.")
    if status == 404:
        return _refusal(Reason.MODEL_NOT_FOUND, f"The Hub answers 404 for a file of {repo_id}.")
    return _refusal(Reason.HUB_UNREACHABLE, f"The Hub answers {status} for {repo_id}.")


def _refusal(reason: Reason, message: str) -> Refusal:
    return Refusal(reason, message, REASON_DOCS[reason].hint)
