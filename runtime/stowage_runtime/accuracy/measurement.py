"""The phases of a check: the baseline, the baseline again, the candidate; then the figures.

The second run of the baseline goes through the prompts in the opposite order, so that requests meet other
neighbours in a batch: what differs then is the noise that any two runs of one engine have. Engines come through
``open_engine``, so that the order of phases does not depend on how they are started.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from stowage_runtime.accuracy.figures import Compared, Scores, answer_figures, likelihood_figures
from stowage_runtime.accuracy.matching import is_right, recorded_is_right
from stowage_runtime.accuracy.prompts import Prompt
from stowage_runtime.accuracy.scorer import Answer, Scorer
from stowage_runtime.contract import AnswerFigures, LaunchSpec, LikelihoodFigures

Tokens = tuple[int, ...]
OpenEngine = Callable[[LaunchSpec, str], AbstractContextManager[Scorer]]
"""Starts the engine of a LaunchSpec under a word for the log, and ends it when the context does."""

TOKENIZERS_DIFFER = (
    "The candidate's tokenizer gives other tokens than the baseline's, so only answers were compared."
)

NOTHING_WAS_RIGHT = "None of the baseline's answers was right, so none could be lost: look at `expected`."


@dataclass(frozen=True)
class BaselineRuns:
    """What the baseline said: its answers, twice, and what it makes of the first ones, twice."""

    tokens: Sequence[Tokens]
    answers: Sequence[Answer]
    again: Sequence[Answer]
    scores: Scores
    scores_again: Scores


@dataclass(frozen=True)
class Measured:
    """The figures of a check; None for what these prompts do not tell."""

    answers: AnswerFigures | None
    likelihood: LikelihoodFigures | None
    notes: tuple[str, ...] = ()


def compare(
    prompts: Sequence[Prompt],
    baseline: LaunchSpec | None,
    candidate: LaunchSpec,
    answer_tokens: int,
    open_engine: OpenEngine,
) -> Measured:
    """Run all phases. Raises what the engines raise, and AgentFailure where one cannot be started."""
    if baseline is None:
        with open_engine(candidate, "candidate") as scorer:
            answers = scorer.answer(prompts, scorer.tokenize(prompts), answer_tokens)
        return Measured(answer_figures(_against_recorded(prompts, answers)), None)
    with open_engine(baseline, "baseline") as scorer:
        runs = run_baseline(scorer, prompts, answer_tokens)
    with open_engine(candidate, "candidate") as scorer:
        return run_candidate(scorer, prompts, answer_tokens, runs)


def run_baseline(scorer: Scorer, prompts: Sequence[Prompt], answer_tokens: int) -> BaselineRuns:
    """Answer and score everything, then once more in the opposite order."""
    tokens = scorer.tokenize(prompts)
    answers = scorer.answer(prompts, tokens, answer_tokens)
    given = [answer.tokens for answer in answers]
    scores = scorer.score(tokens, given)
    scores_again = scorer.score(tokens[::-1], given[::-1])[::-1]
    judged = _judged(prompts)
    again = scorer.answer(
        [prompts[index] for index in judged[::-1]], [tokens[index] for index in judged[::-1]], answer_tokens
    )[::-1]
    return BaselineRuns(tokens, answers, again, scores, scores_again)


def run_candidate(
    scorer: Scorer, prompts: Sequence[Prompt], answer_tokens: int, baseline: BaselineRuns
) -> Measured:
    """Score the baseline's answers and answer the prompts whose answers can be judged."""
    tokens = scorer.tokenize(prompts)
    notes: tuple[str, ...] = ()
    likelihood = None
    if list(tokens) == list(baseline.tokens):
        scores = scorer.score(tokens, [answer.tokens for answer in baseline.answers])
        likelihood = likelihood_figures(baseline.scores, baseline.scores_again, scores)
    else:
        notes = (TOKENIZERS_DIFFER,)
    judged = _judged(prompts)
    asked = [prompts[index] for index in judged]
    answers = scorer.answer(asked, [tokens[index] for index in judged], answer_tokens)
    compared = [
        Compared(
            baseline=is_right(prompt, baseline.answers[judged[place]].text),
            again=is_right(prompt, baseline.again[place].text),
            candidate=is_right(prompt, answers[place].text),
        )
        for place, prompt in enumerate(asked)
    ]
    if compared and not any(each.baseline for each in compared):
        notes = (*notes, NOTHING_WAS_RIGHT)
    return Measured(answer_figures(compared), likelihood, notes)


def _judged(prompts: Sequence[Prompt]) -> list[int]:
    """Places of the prompts whose answers can be called right or wrong."""
    return [index for index, prompt in enumerate(prompts) if prompt.has_reference]


def _against_recorded(prompts: Sequence[Prompt], answers: Sequence[Answer]) -> list[Compared]:
    return [
        Compared(recorded_is_right(prompt), None, is_right(prompt, answers[index].text))
        for index, prompt in enumerate(prompts)
    ]
