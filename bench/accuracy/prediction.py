"""What the ledger predicts for a case, in the units of the log, next to what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bench.accuracy.case import Case
from bench.accuracy.launch import chooses_length
from bench.accuracy.models import ModelFolder
from bench.accuracy.question import Question, ask, find_device
from stowage.api.refusal import Refusal
from stowage.memory.budget import rank_ledgers, tightest
from stowage.memory.ledger import Ledger

_GIB = 2**30
_NAMES = ("weights_gib", "kv_available_gib", "kv_tokens", "max_concurrency")


@dataclass(frozen=True)
class Answer:
    """A case with its prediction; `unanswered` says why there is none."""

    case: Case
    core: bool
    predicted: Mapping[str, Any]
    measured: Mapping[str, Any]
    assumed: tuple[str, ...]
    unanswered: str | None
    gpu: str = ""
    family: str = ""

    def error(self, name: str) -> float | None:
        """Relative error of a figure, None where either side is missing or nothing was measured."""
        predicted, measured = self.predicted.get(name), self.measured.get(name)
        if predicted is None or measured is None or measured <= 0:
            return None
        return float(predicted / measured - 1)

    def as_json(self) -> dict[str, Any]:
        """Give the answer as one entry of the result file."""
        return {
            "id": self.case.identifier,
            "predicted": dict(self.predicted),
            "measured": dict(self.measured),
            "assumed": list(self.assumed),
            "unanswered": self.unanswered,
        }


def answer(case: Case, models: ModelFolder) -> Answer:
    """Predict one case."""
    found = find_device(case)
    core = case.is_core(memory_is_known=not isinstance(found, str) and found[1])
    question = ask(case, models)
    if isinstance(question, str):
        return Answer(case, core, _nothing(), _measured(case), (), question)
    question, ledgers = _asked(case, question)
    if isinstance(ledgers, Refusal):
        predicted = {**_nothing(), "verdict": "DoesNotFit", "reason": ledgers.message}
    else:
        predicted = _predicted(case, question, tightest(ledgers), ledgers)
    gpu, family = question.device.name, question.profile.architecture
    return Answer(case, core, predicted, _measured(case), question.assumed, None, gpu, family)


def _asked(case: Case, question: Question) -> tuple[Question, tuple[Ledger, ...] | Refusal]:
    """Ask the ledger; where the engine chooses the context itself ("auto"), for the longest that fits."""
    ledgers = rank_ledgers(question.profile, question.shape, question.device, question.version)
    if isinstance(ledgers, Refusal) or not chooses_length(case):
        return question, ledgers
    longest = tightest(ledgers).largest_max_model_len
    if longest is None or longest >= question.shape.max_model_len:
        return question, ledgers
    question = replace(question, shape=replace(question.shape, max_model_len=longest))
    return question, rank_ledgers(question.profile, question.shape, question.device, question.version)


def _predicted(case: Case, question: Question, worst: Ledger, ledgers: tuple[Ledger, ...]) -> dict[str, Any]:
    length = case.row.get("max_concurrency_len")
    at_length = worst
    if isinstance(length, int) and length != question.shape.max_model_len and length > 0:
        shape = replace(question.shape, max_model_len=length)
        other = rank_ledgers(question.profile, shape, question.device, question.version)
        at_length = worst if isinstance(other, Refusal) else tightest(other)
    return {
        "weights_gib": max(entry.weights_allocated_bytes for entry in ledgers) / _GIB,
        "kv_available_gib": worst.kv_cache_bytes / _GIB,
        "kv_tokens": _tokens(case, at_length, length) if worst.kv_cache_bytes > 0 else 0,
        "max_concurrency": at_length.max_concurrency,
        "verdict": worst.verdict,
        "reason": worst.refusal.message if worst.refusal else worst.caution,
    }


def _tokens(case: Case, entry: Ledger, length: Any) -> int:
    """Count tokens in the way that the measured figure was counted."""
    if case.row.get("max_concurrency") is not None and isinstance(length, int):
        return int(entry.max_concurrency * length)
    return entry.kv_tokens


def _measured(case: Case) -> dict[str, Any]:
    return {
        "weights_gib": case.row.get("weights_gib"),
        "kv_available_gib": case.row.get("kv_available_gib"),
        "kv_tokens": case.measured_kv_tokens,
        "max_concurrency": case.row.get("max_concurrency"),
        "verdict": case.row.get("outcome"),
        "reason": case.row.get("error_text"),
    }


def _nothing() -> dict[str, Any]:
    return {**dict.fromkeys(_NAMES), "verdict": None, "reason": None}
