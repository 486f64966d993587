"""status.accuracy: the check of a lossy plan on the user's own prompts, its figures and what they were judged to mean.

All figures are measured, none is predicted. Like everything in status it is never an input: what has to be remembered
of a check stands on the workload object.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from stowage.api.base import Sentence, StatusModel, Word
from stowage.api.v1alpha1.plan_status import Count

MOST_PERCENT = 1_000_000
"""Beyond it a number says nothing more; bounds of the schema must stay within whole numbers of 64 bits."""

Percent = Annotated[float, Field(ge=-MOST_PERCENT, le=MOST_PERCENT)]


class AccuracyState(StrEnum):
    """What the check does."""

    WAITING = "Waiting"
    RUNNING = "Running"
    JUDGED = "Judged"


class AccuracyVerdict(StrEnum):
    """What the check has shown."""

    PASS = "Pass"  # noqa: S105 - a verdict, not a secret
    FAIL = "Fail"
    INCONCLUSIVE = "Inconclusive"


class AccuracyAnswers(StatusModel):
    """Answers that were compared with the expected or recorded ones."""

    compared: Count = Field(description="Prompts with an expected or a recorded answer.")
    baseline_right: Count = Field(description="Answers of the baseline that were right.")
    candidate_right: Count = Field(description="Answers of the candidate that were right.")
    lost: Count = Field(description="Right with the baseline, wrong with the candidate.")
    gained: Count = Field(description="Wrong with the baseline, right with the candidate.")
    changed_by_noise: Count | None = Field(
        None, description="Answers that were right in one run of the baseline and wrong in the other."
    )
    drop_percent: Percent = Field(description="Drop of the share of right answers, in percentage points.")
    at_least_percent: Percent | None = Field(None, description="Lower confidence bound of the drop.")
    at_most_percent: Percent | None = Field(None, description="Upper confidence bound of the drop.")


class AccuracyLikelihood(StatusModel):
    """How likely the candidate finds the answers that the baseline gave."""

    prompts: Count = Field(description="Answers that were scored.")
    tokens: Count = Field(description="Their tokens.")
    drop_percent: Percent = Field(description="By how much less likely a token is, on average over prompts.")
    at_least_percent: Percent | None = Field(None, description="Lower confidence bound of the drop.")
    at_most_percent: Percent | None = Field(None, description="Upper confidence bound of the drop.")
    noise_percent: Percent | None = Field(
        None, description="How far the baseline differs from itself between two runs, at most."
    )


class AccuracyStatus(StatusModel):
    """The accuracy check of the lossy plan that would be taken next."""

    candidate: Word = Field(description="What is lossy about the plan that is checked.")
    state: AccuracyState = Field(description="Waiting, Running or Judged.")
    verdict: AccuracyVerdict | None = Field(None, description="Pass, Fail or Inconclusive, once judged.")
    reason: Word | None = Field(None, description="Why, as one word from docs/reasons.md.")
    message: Sentence = Field(description="What the check does or has shown, in a sentence.")
    max_drop: Word | None = Field(None, description="The loss that is accepted.")
    confidence_percent: Percent | None = Field(None, description="Confidence of every bound, one-sided.")
    prompts: Count | None = Field(None, description="Prompts that were used.")
    needed_prompts: Count | None = Field(
        None, description="Prompts with which answers alone could show a loss of at most maxDrop."
    )
    answers: AccuracyAnswers | None = Field(None, description="Answers compared with expected ones.")
    likelihood: AccuracyLikelihood | None = Field(
        None, description="Log-probabilities of the baseline's answers, compared."
    )
    engine: Word | None = Field(None, description="vllm, or simulated for a stand-in engine.")
    job: Word | None = Field(None, description="The Job that measures.")
    finished_time: Word | None = Field(
        None, description="When the check was measured.", json_schema_extra={"format": "date-time"}
    )
