from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from stowage.kube.errors import Forbidden
from stowage.kube.recorder import Recorder, event_object
from stowage.world import EventIntent
from tests.kube.fake_time import run
from tests.kube.objects import llm

FITS = EventIntent("Normal", "Fits", "Plan", "It fits.")


class Sink:
    def __init__(self, error: Exception | None = None) -> None:
        self.posted: list[tuple[float, str]] = []
        self.error = error

    async def create(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        if self.error is not None:
            raise self.error
        self.posted.append((asyncio.get_running_loop().time(), event["note"]))
        return event


async def started(sink: Sink, **options: Any) -> Recorder:
    recorder = Recorder(sink, "pod-1", **options)  # type: ignore[arg-type]
    asyncio.get_running_loop().create_task(recorder.run(), name="recorder")
    return recorder


@pytest.mark.parametrize(
    ("pause", "expected"),
    [
        pytest.param(599.0, [True, False], id="the same event within ten minutes is dropped"),
        pytest.param(601.0, [True, True], id="the same event after ten minutes is posted again"),
    ],
)
def test_repetition(pause: float, expected: list[bool]) -> None:
    async def scenario() -> list[bool]:
        recorder = await started(Sink())
        first = recorder.record(llm(), FITS)
        await asyncio.sleep(pause)
        return [first, recorder.record(llm(), FITS)]

    assert run(scenario()) == expected


def test_one_object_gets_one_event_a_second_and_another_does_not_wait_for_it() -> None:
    sink = Sink()

    async def scenario() -> float:
        recorder = await started(sink)
        begin = asyncio.get_running_loop().time()
        for number in range(3):
            recorder.record(llm("one"), EventIntent("Normal", "Fits", "Plan", f"one {number}"))
        recorder.record(llm("two"), EventIntent("Normal", "Fits", "Plan", "two"))
        await asyncio.sleep(10.0)
        return begin

    begin = run(scenario())
    times = {note: time - begin for time, note in sink.posted}
    assert times["two"] < 0.5
    assert [times[f"one {number}"] for number in range(3)] == pytest.approx([0.0, 1.0, 2.0], abs=0.1)


def test_a_flood_loses_its_end_and_says_so() -> None:
    dropped: list[int] = []

    async def scenario() -> list[bool]:
        recorder = await started(Sink(), on_drop=lambda: dropped.append(1))
        return [recorder.record(llm(), EventIntent("Normal", "Fits", "Plan", str(n))) for n in range(30)]

    accepted = run(scenario())
    assert accepted == [True] * 20 + [False] * 10
    assert len(dropped) == 10


def test_a_refused_event_does_not_end_the_recorder() -> None:
    sink = Sink(Forbidden(403, "Forbidden", "no"))

    async def scenario() -> None:
        recorder = await started(sink)
        recorder.record(llm(), FITS)
        await asyncio.sleep(2.0)
        sink.error = None
        recorder.record(llm(), EventIntent("Normal", "Fits", "Plan", "second"))
        await asyncio.sleep(2.0)

    run(scenario())
    assert [note for _, note in sink.posted] == ["second"]


def test_the_event_object_is_about_the_resource_and_its_note_is_cut_by_bytes() -> None:
    intent = EventIntent("Warning", "InsufficientGPUs", "Plan", "é" * 2000)
    event = event_object(llm(), intent, "i" * 200, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert len(event["note"].encode()) <= 1024
    assert len(event["reportingInstance"]) == 128
    assert event["eventTime"] == "2026-01-02T03:04:05.000000Z"
    assert event["regarding"]["uid"] == "uid-llama"
    assert event["metadata"]["namespace"] == "default"
