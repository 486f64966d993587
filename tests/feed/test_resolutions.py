from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.feed.models.resolutions import Resolutions
from stowage.kube.errors import Unreachable
from stowage.world import Key, ModelFailed, ModelPending, ModelQuery, ModelResolved
from stowage_runtime.contract import CheckpointSummary
from tests.kube.fake_time import run
from tests.kube.objects import KEY

SUMMARY = CheckpointSummary(
    source="hf://org/tiny", config={"a": 1}, tensors=(), total_bytes=0, files=0, revision="abc"
)
MISSING = Refusal(Reason.MODEL_NOT_FOUND, "There is no such model.")
BROKEN = Refusal(Reason.INVALID_MODEL_CONFIG, "config.json is broken.")


def query(inputs: str = "1", key: Key = KEY) -> ModelQuery:
    return ModelQuery(key, inputs, "hf://org/tiny")


class Reader:
    def __init__(self, *answers: CheckpointSummary | Refusal | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.at_once = 0
        self.most_at_once = 0

    async def __call__(self, question: ModelQuery) -> CheckpointSummary | Refusal:
        self.asked.append(question.inputs)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(1.0)
        finally:
            self.at_once -= 1
        answer = self.answers.pop(0) if self.answers else SUMMARY
        if isinstance(answer, Exception):
            raise answer
        return answer


def moment(seconds: float = 0.0) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def test_a_question_is_asked_once_and_its_answer_kept() -> None:
    reader, woken = Reader(), []

    async def scenario() -> Resolutions:
        subject = Resolutions(reader, lambda key, seconds: woken.append((key, seconds)))
        assert subject.want(query(), moment())
        assert not subject.want(query(), moment())
        answer = subject.get(KEY)
        assert answer is not None
        assert isinstance(answer.state, ModelPending)
        await asyncio.sleep(2.0)
        assert not subject.want(query(), moment(9999))
        return subject

    answer = run(scenario()).get(KEY)
    assert answer is not None
    assert answer.state == ModelResolved(SUMMARY)
    assert reader.asked == ["1"]
    assert woken == [(KEY, 0.0)]


def test_another_question_replaces_the_one_under_way() -> None:
    reader = Reader()

    async def scenario() -> Resolutions:
        subject = Resolutions(reader, lambda key, seconds: None)
        subject.want(query("1"), moment())
        await asyncio.sleep(0.5)
        subject.want(query("2"), moment())
        await asyncio.sleep(3.0)
        return subject

    answer = run(scenario()).get(KEY)
    assert answer is not None
    assert answer.query.inputs == "2"
    assert reader.asked == ["1", "2"]


def test_a_failure_stands_until_the_next_try_has_an_answer() -> None:
    reader, woken = Reader(MISSING, SUMMARY), []

    async def scenario() -> list[type]:
        subject = Resolutions(reader, lambda key, seconds: woken.append(seconds))
        states = []
        subject.want(query(), moment())
        await asyncio.sleep(2.0)
        first = subject.get(KEY)
        assert first is not None
        assert isinstance(first.state, ModelFailed)
        assert first.state.refusal == MISSING
        assert not subject.want(query(), moment(10))
        assert subject.want(query(), moment(400))
        for _ in range(2):
            answer = subject.get(KEY)
            assert answer is not None
            states.append(type(answer.state))
            await asyncio.sleep(2.0)
        return states

    assert run(scenario()) == [ModelFailed, ModelResolved]
    assert woken == [0.0, 300.0, 0.0]


def test_what_only_an_edit_cures_is_not_tried_again() -> None:
    async def scenario() -> bool:
        subject = Resolutions(Reader(BROKEN), lambda key, seconds: None)
        subject.want(query(), moment())
        await asyncio.sleep(2.0)
        return subject.want(query(), moment(99999))

    assert run(scenario()) is False


def test_a_server_that_is_away_and_a_bug_both_end_as_an_answer() -> None:
    async def scenario() -> list[Reason]:
        errors = [Unreachable(0, "Unreachable", "gone"), ZeroDivisionError()]
        subject = Resolutions(Reader(*errors), lambda key, seconds: None)
        found = []
        for _ in range(2):
            subject.want(query(), moment(100))
            await asyncio.sleep(2.0)
            answer = subject.get(KEY)
            assert answer is not None
            assert isinstance(answer.state, ModelFailed)
            found.append(answer.state.refusal.reason)
        return found

    assert run(scenario()) == [Reason.INSPECTION_FAILED] * 2


def test_no_more_than_the_allowed_number_is_read_at_once() -> None:
    reader = Reader()

    async def scenario() -> None:
        subject = Resolutions(reader, lambda key, seconds: None, parallel=3)
        for number in range(10):
            subject.want(query(key=Key("default", str(number))), moment())
        await asyncio.sleep(30.0)

    run(scenario())
    assert reader.most_at_once == 3
    assert len(reader.asked) == 10


def test_forgetting_stops_the_task_and_the_answer_never_comes() -> None:
    woken: list[Key] = []

    async def scenario() -> Resolutions:
        subject = Resolutions(Reader(), lambda key, seconds: woken.append(key))
        subject.want(query(), moment())
        await asyncio.sleep(0.5)
        subject.forget(KEY)
        await asyncio.sleep(5.0)
        return subject

    assert run(scenario()).get(KEY) is None
    assert woken == []
