"""What is remembered of accuracy checks, as one JSON document on the workload object.

The lossy plan that waits for its check, and what finished checks have measured. Verdicts are not in it: they follow
from the figures and from the loss that the spec accepts now. Where nothing serves yet, and so no workload object
exists, the same document stands in a ConfigMap.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stowage.planning.plan import Plan
from stowage.render import names
from stowage.render.canonical import canonical_json
from stowage_runtime.contract import AccuracyReport, ContractError

_KEPT = 8


@dataclass(frozen=True, slots=True)
class Contender:
    """A lossy plan that would be taken once its check has passed.

    `inputs` is the digest of the spec fields that it was planned for; `status_plan` what `status.plan` would show.
    """

    inputs: str
    plan: Plan
    status_plan: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a finished check has left: a report, or the reason and sentence why there is none.

    `check_id` names the comparison, `candidate` the accuracy key of the lossy plan, `scope` what the comparison
    rests on besides (commit and prompts). `attempts` counts tries that measured nothing.
    """

    check_id: str
    candidate: str
    scope: str
    words: str
    finished_at: str
    report: AccuracyReport | None = None
    failure: tuple[str, str] | None = None
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class AccuracyRecord:
    """Everything that is remembered, the newest result last."""

    contender: Contender | None = None
    results: tuple[CheckResult, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing worth writing down."""
        return self.contender is None and not self.results

    def result(self, check_id: str) -> CheckResult | None:
        """The result of one comparison."""
        return next((each for each in self.results if each.check_id == check_id), None)

    def with_result(self, result: CheckResult) -> AccuracyRecord:
        """The record with a newer result of a comparison; the oldest ones are forgotten."""
        others = tuple(each for each in self.results if each.check_id != result.check_id)
        return AccuracyRecord(self.contender, (*others, result)[-_KEPT:])

    def to_json(self) -> str:
        """The canonical JSON form."""
        contender = self.contender
        return canonical_json(
            {
                "contender": contender
                and {
                    "inputs": contender.inputs,
                    "plan": json.loads(contender.plan.to_json()),
                    "statusPlan": dict(contender.status_plan),
                },
                "results": [_result_document(result) for result in self.results],
            }
        )


def read_accuracy_record(
    deployment: Mapping[str, Any] | None, config_map: Mapping[str, Any] | None
) -> AccuracyRecord:
    """Read what is remembered on the Deployment, else in the ConfigMap; an unreadable document counts as none.

    Somebody may have edited it: then a check is made again, which costs time but promises nothing wrong.
    """
    annotations = (deployment or {}).get("metadata", {}).get("annotations") or {}
    data = (config_map or {}).get("data") or {}
    for text in (annotations.get(names.ACCURACY_ANNOTATION), data.get(names.RECORD_KEY)):
        if not text:
            continue
        try:
            return _read(json.loads(text))
        except (AttributeError, ContractError, KeyError, TypeError, ValueError):
            continue
    return AccuracyRecord()


def _read(document: Mapping[str, Any]) -> AccuracyRecord:
    pending = document["contender"]
    contender = None
    if pending is not None:
        plan = Plan.from_json(json.dumps(pending["plan"]))
        contender = Contender(str(pending["inputs"]), plan, dict(pending["statusPlan"]))
    return AccuracyRecord(contender, tuple(_read_result(each) for each in document["results"]))


def _result_document(result: CheckResult) -> dict[str, Any]:
    return {
        "checkId": result.check_id,
        "candidate": result.candidate,
        "scope": result.scope,
        "words": result.words,
        "finishedAt": result.finished_at,
        "report": result.report.to_dict() if result.report else None,
        "failure": list(result.failure) if result.failure else None,
        "attempts": result.attempts,
    }


def _read_result(document: Mapping[str, Any]) -> CheckResult:
    report, failure = document["report"], document["failure"]
    return CheckResult(
        check_id=str(document["checkId"]),
        candidate=str(document["candidate"]),
        scope=str(document["scope"]),
        words=str(document["words"]),
        finished_at=str(document["finishedAt"]),
        report=AccuracyReport.from_dict(report) if report else None,
        failure=(str(failure[0]), str(failure[1])) if failure else None,
        attempts=int(document["attempts"]),
    )
