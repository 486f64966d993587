"""A planning result explained: the entrance for whoever shows one.

The words are in `words`, status.plan in `status`, the document for machines in `document`.
"""

from __future__ import annotations

from stowage.planning.explain.document import result_document
from stowage.planning.explain.status import status_plan
from stowage.planning.explain.words import (
    gpus_words,
    grouped,
    parallel_words,
    plan_words,
    shape_words,
    summary,
)

__all__ = [
    "gpus_words",
    "grouped",
    "parallel_words",
    "plan_words",
    "result_document",
    "shape_words",
    "status_plan",
    "summary",
]
