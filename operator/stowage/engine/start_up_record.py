"""Measured start-ups as JSON: on the workload object that they were measured on, and in files for the command line.

A start-up is written down once and never changed, so a converged object costs no write. Reading takes only what this
version has sized itself: the difference between measured and predicted means nothing for another memory model.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from stowage import __version__
from stowage.api.reasons import Reason
from stowage.api.refusal import Refusal
from stowage.memory.calibration import UNCALIBRATED, Calibration, StartRecord, calibrate
from stowage.planning.plain import from_plain, to_plain
from stowage.render import names
from stowage.render.canonical import canonical_json


@dataclass(frozen=True, slots=True)
class StartUp:
    """One start of one engine: `start` names it, `sized_by` is the release of Stowage that predicted it."""

    start: str
    started_at: str
    sized_by: str
    record: StartRecord

    @property
    def order(self) -> tuple[str, str]:
        """Oldest first; no two starts are equal."""
        return self.started_at, self.start


def start_ups_json(start_ups: Iterable[StartUp]) -> str:
    """The canonical JSON form, in the order of time."""
    return canonical_json([to_plain(each) for each in sorted(start_ups, key=lambda each: each.order)])


def read_start_ups(deployment: Mapping[str, Any] | None) -> tuple[StartUp, ...]:
    """Read the start-ups of a Deployment; entries that cannot be read are left out."""
    text = start_ups_text(deployment or {})
    return _read(text) if text else ()


def start_ups_text(obj: Mapping[str, Any]) -> str | None:
    """The annotation of an object that holds start-ups."""
    found = ((obj.get("metadata") or {}).get("annotations") or {}).get(names.START_UPS_ANNOTATION)
    return found if isinstance(found, str) else None


def calibration_of(texts: Iterable[str], sized_by: str = __version__) -> Calibration:
    """What start-ups teach, given their annotations; those that another release has sized are left out."""
    known = {each.start: each for text in texts for each in _read(text) if each.sized_by == sized_by}
    return calibrate(known[start].record for start in sorted(known)) if known else UNCALIBRATED


def read_calibration(text: str) -> Calibration | Refusal:
    """Read a file of start-ups: the list of an annotation, or what `kubectl get deployments -o json` prints."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        return _no_calibration(f"it is not JSON ({error})")
    if isinstance(document, list):
        return calibration_of([text])
    items = document.get("items", [document]) if isinstance(document, dict) else None
    if not isinstance(items, list) or not all(isinstance(each, dict) for each in items):
        return _no_calibration("it holds neither a list of start-ups nor Deployments")
    return calibration_of([found for each in items if (found := start_ups_text(each))])


def _no_calibration(why: str) -> Refusal:
    return Refusal(
        Reason.INVALID_SPEC,
        f"The calibration file cannot be used: {why}.",
        "Write one by `kubectl get deployments -A -l app.kubernetes.io/managed-by=stowage -o json`.",
    )


def _read(text: str) -> tuple[StartUp, ...]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    if not isinstance(document, list):
        return ()
    found = (_read_one(each) for each in document)
    return tuple(each for each in found if each is not None)


def _read_one(document: Any) -> StartUp | None:
    try:
        return from_plain(StartUp, document)
    except (KeyError, TypeError, ValueError):
        return None
