"""What the figures of a check mean: Pass, Fail or Inconclusive, and what is said with it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stowage.api.v1alpha1 import AccuracyVerdict
from stowage.engine.accuracy.verdict import judge, needed_prompts
from stowage_runtime.accuracy.bounds import CONFIDENCE, paired_drop
from stowage_runtime.contract import AccuracyReport, AnswerFigures, LikelihoodFigures

settings.register_profile("verdict", deadline=None, max_examples=60)
settings.load_profile("verdict")

PASS, FAIL, OPEN = AccuracyVerdict.PASS, AccuracyVerdict.FAIL, AccuracyVerdict.INCONCLUSIVE


def answers(lost: int, gained: int = 0, compared: int = 100) -> AnswerFigures:
    bounds = paired_drop(lost, gained, compared)
    right = compared - gained
    return AnswerFigures(
        compared, right, right - lost + gained, lost, gained, bounds.estimate, bounds.low, bounds.high
    )


def tokens(low: float, drop: float, high: float, noise: float = 0.0, prompts: int = 100) -> LikelihoodFigures:
    return LikelihoodFigures(prompts, 5000, drop, low, high, noise)


def report(
    said: AnswerFigures | None = None, likely: LikelihoodFigures | None = None, prompts: int = 100
) -> AccuracyReport:
    return AccuracyReport("ab" * 20, "Measured.", prompts, "0" * 64, CONFIDENCE, "vllm", said, likely)


@pytest.mark.parametrize(
    ("found", "verdict", "words"),
    [
        pytest.param(report(likely=tokens(-0.001, 0.002, 0.006)), PASS, "at most 0.6 %", id="a small bound"),
        pytest.param(report(likely=tokens(0.0, 0.0, 0.0)), PASS, "at most 0 %", id="an identical copy"),
        pytest.param(report(likely=tokens(0.02, 0.03, 0.04)), FAIL, "at least 2 % less likely", id="a loss"),
        pytest.param(report(likely=tokens(0.001, 0.006, 0.012)), OPEN, "more prompts", id="a wide bound"),
        pytest.param(
            report(likely=tokens(-0.001, 0.0, 0.005, noise=0.02)), OPEN, "differs from itself", id="noise"
        ),
        pytest.param(
            report(likely=tokens(0.0, 0.0, 0.0, prompts=9), prompts=9), OPEN, "too few", id="nine prompts"
        ),
        pytest.param(
            report(likely=LikelihoodFigures(1, 50, 0.3), prompts=1), OPEN, "1 prompts are too few", id="one"
        ),
        pytest.param(
            report(answers(0), tokens(-0.001, 0.002, 0.006)),
            PASS,
            "0 of 100 answers lost",
            id="both are good",
        ),
        pytest.param(
            report(answers(1), tokens(-0.001, 0.002, 0.006)), PASS, "1 of 100", id="one of a hundred is 1 %"
        ),
        pytest.param(
            report(answers(2), tokens(-0.001, 0.002, 0.006)), OPEN, "may be chance", id="two of a hundred"
        ),
        pytest.param(
            report(answers(30), tokens(-0.001, 0.002, 0.006)),
            FAIL,
            "of the answers are lost",
            id="thirty lost",
        ),
        pytest.param(report(answers(0)), OPEN, "takes at least 321 prompts", id="100 answers alone"),
        pytest.param(report(answers(0, compared=321)), PASS, "a drop of at most", id="321 answers alone"),
        pytest.param(report(answers(0, compared=320)), OPEN, "321 prompts", id="320 answers are one too few"),
        pytest.param(
            report(replace(answers(0, compared=400), baseline_right=199)),
            OPEN,
            "too few to lose",
            id="mostly wrong before",
        ),
        pytest.param(report(), OPEN, "Nothing could be compared", id="nothing measured"),
    ],
)
def test_a_verdict_follows_from_what_is_shown(
    found: AccuracyReport, verdict: AccuracyVerdict, words: str
) -> None:
    judgement = judge(found, 0.01)
    assert judgement.verdict is verdict, judgement.message
    assert words in judgement.message
    assert judgement.needed_prompts == 321


@pytest.mark.parametrize(("max_drop", "prompts"), [(0.01, 321), (0.05, 63), (0.005, 643), (1.0, 1)])
def test_the_number_of_prompts_that_answers_need_is_the_exact_rule_of_three(
    max_drop: float, prompts: int
) -> None:
    assert needed_prompts(max_drop, 0.95) == prompts
    assert paired_drop(0, 0, prompts).high <= max_drop + 1e-9
    if prompts > 1:
        assert paired_drop(0, 0, prompts - 1).high > max_drop


ORDER = {PASS: 0, OPEN: 1, FAIL: 2}
shares = st.floats(-0.2, 0.9)
figures = st.tuples(shares, shares, shares).map(sorted).map(lambda each: tokens(each[0], each[1], each[2]))
counts = st.integers(0, 60).flatmap(
    lambda lost: st.builds(answers, st.just(lost), st.integers(0, 100 - lost))
)
reports = st.builds(report, st.none() | counts, st.none() | figures)


@given(reports, st.floats(0.001, 0.9), st.floats(0.0, 0.1))
def test_accepting_more_never_makes_a_verdict_worse(
    found: AccuracyReport, max_drop: float, more: float
) -> None:
    assert ORDER[judge(found, max_drop + more).verdict] <= ORDER[judge(found, max_drop).verdict]


@given(reports, st.floats(0.001, 0.9))
def test_a_pass_is_never_given_above_the_bound_that_proves_it(found: AccuracyReport, max_drop: float) -> None:
    if judge(found, max_drop).verdict is PASS:
        proof = found.likelihood or found.answers
        assert proof is not None
        assert proof.drop_high is not None
        assert proof.drop_high <= max_drop
        assert found.answers is None or found.answers.drop <= max_drop
