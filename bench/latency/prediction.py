"""What the estimator predicts for a case, next to what was measured and what a plain roofline says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.latency.case import MEASURED, Case
from bench.latency.models import LatencyModels
from bench.latency.plain import plain_roofline
from bench.latency.question import Question, ask
from stowage.api.refusal import Refusal
from stowage.performance.estimator import Estimator
from stowage.performance.roofline import Roofline


@dataclass(frozen=True)
class Answer:
    """A case with its prediction; `unanswered` says why there is none. `plain` is the plain roofline's."""

    case: Case
    predicted: Mapping[str, float | None]
    measured: Mapping[str, float | None]
    plain: Mapping[str, float | None]
    assumed: tuple[str, ...]
    unmeasured: tuple[str, ...]
    unanswered: str | None
    gpu: str = ""

    def error(self, name: str, plain: bool = False) -> float | None:
        """Relative error of a figure, None where either side is missing."""
        predicted = (self.plain if plain else self.predicted).get(name)
        measured = self.measured.get(name)
        if predicted is None or not measured:
            return None
        return predicted / measured - 1

    def as_json(self) -> dict[str, Any]:
        """Give the answer as one entry of the result file."""
        return {
            "id": self.case.identifier,
            "predicted": dict(self.predicted),
            "measured": dict(self.measured),
            "assumed": [*self.assumed, *(f"unmeasured: {name}" for name in self.unmeasured)],
            "unanswered": self.unanswered,
        }


def answer(case: Case, models: LatencyModels, estimator: Estimator | None = None) -> Answer:
    """Predict one case."""
    question = ask(case, models)
    if isinstance(question, str):
        return unanswered(case, question)
    forecast = (estimator or Roofline()).forecast(question.serving, question.traffic)
    gpu = question.serving.gpu.name
    if isinstance(forecast, Refusal):
        return unanswered(case, forecast.sentence, question.assumed, gpu)
    predicted: dict[str, float | None] = {
        "ttft_ms": forecast.ttft_seconds.central * 1000,
        "tpot_ms": forecast.tpot_seconds.central * 1000 or None,
        "output_tok_s": forecast.output_tokens_per_second.central,
    }
    said = (*question.assumed, *forecast.assumptions)
    plain = _plain(question)
    return Answer(case, predicted, case.measured, plain, said, forecast.unmeasured, None, gpu)


def unanswered(case: Case, why: str, assumed: tuple[str, ...] = (), gpu: str = "") -> Answer:
    """Say why a case has no prediction."""
    nothing: dict[str, float | None] = dict.fromkeys(MEASURED)
    return Answer(case, nothing, case.measured, nothing, assumed, (), why, gpu)


def _plain(question: Question) -> dict[str, float | None]:
    ttft, tpot = plain_roofline(question.serving, question.traffic)
    return {"ttft_ms": ttft * 1000, "tpot_ms": tpot * 1000, "output_tok_s": None}
