"""What status.accuracy shows stays within the bounds of its schema, whatever was measured."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from stowage.api.v1alpha1 import AccuracySpec, AccuracyStatus
from stowage.engine.accuracy.record import CheckResult
from stowage.engine.accuracy.status import judged_status
from stowage.engine.accuracy.verdict import judge
from stowage_runtime.accuracy.figures import Compared, answer_figures, likelihood_figures
from stowage_runtime.contract import AccuracyReport

settings.register_profile("status", deadline=None, max_examples=50)
settings.load_profile("status")

ACCEPTED = AccuracySpec.model_validate({"promptsRef": {"configMap": "questions"}})
scores = st.lists(st.lists(st.floats(-20, 0), min_size=1, max_size=3), min_size=1, max_size=4)
compared = st.lists(st.builds(Compared, st.booleans(), st.none() | st.booleans(), st.booleans()), max_size=9)


@given(scores, scores, compared)
def test_every_measurement_becomes_a_valid_status(
    before: list[list[float]], after: list[list[float]], said: list[Compared]
) -> None:
    count = min(len(before), len(after))
    one, other = ([tuple(each[:1]) for each in side[:count]] for side in (before, after))
    report = AccuracyReport(
        "ab" * 20,
        "Measured.",
        count,
        "0" * 64,
        0.95,
        "vllm",
        answer_figures(said),
        likelihood_figures(one, other, other),
    )
    read = AccuracyReport.from_json(report.to_line())
    result = CheckResult("ab", "cd", "ef", "fp8", "2030-01-01T00:00:00Z", read)
    shown = judged_status(result, read, judge(read, ACCEPTED.max_drop_share), ACCEPTED)
    assert AccuracyStatus.model_validate(shown).to_dict() == shown
