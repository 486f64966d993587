from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowage.kube.token_bucket import TokenBucket
from stowage.kube.workqueue import Backoff, WorkQueue
from tests.kube.fake_time import run

Queue = WorkQueue[str]


def queue(**options: Any) -> Queue:
    return WorkQueue(lambda: 0.5, **options)


def now() -> float:
    return asyncio.get_running_loop().time()


def test_a_key_is_queued_at_most_once() -> None:
    async def scenario() -> int:
        q = queue()
        for _ in range(5):
            q.add("a")
        q.add("b")
        return len(q)

    assert run(scenario()) == 2


def test_keys_come_out_in_the_order_they_went_in() -> None:
    async def scenario() -> list[str]:
        q = queue()
        for key in "cab":
            q.add(key)
        return [await q.get() for _ in range(3)]

    assert run(scenario()) == ["c", "a", "b"]


def test_a_key_added_while_it_is_worked_on_comes_back_after_done_and_not_before() -> None:
    async def scenario() -> tuple[int, int, str]:
        q = queue()
        q.add("a")
        key = await q.get()
        q.add("a")
        q.add("a")
        while_working = len(q)
        q.done(key)
        return while_working, len(q), await q.get()

    assert run(scenario()) == (0, 1, "a")


def test_two_workers_never_hold_the_same_key() -> None:
    held: list[str] = []
    overlaps: list[str] = []

    async def worker(q: Queue) -> None:
        while True:
            key = await q.get()
            if key in held:
                overlaps.append(key)
            held.append(key)
            await asyncio.sleep(0.3)
            held.remove(key)
            q.done(key)

    async def scenario() -> None:
        q = queue()
        workers = [asyncio.create_task(worker(q)) for _ in range(4)]
        for _ in range(30):
            q.add("a")
            q.add("b")
            await asyncio.sleep(0.1)
        for task in workers:
            task.cancel()

    run(scenario())
    assert overlaps == []


def test_a_delayed_key_appears_when_its_time_has_come() -> None:
    async def scenario() -> float:
        q = queue()
        started = now()
        q.add_after("a", 30.0)
        await q.get()
        return now() - started

    assert run(scenario()) == pytest.approx(30.0)


@pytest.mark.parametrize(
    "delays",
    [
        pytest.param((10.0, 60.0), id="a later wish does not postpone an earlier one"),
        pytest.param((60.0, 10.0), id="an earlier wish replaces a later one"),
    ],
)
def test_the_earliest_of_several_delays_counts_and_fires_once(delays: tuple[float, float]) -> None:
    async def scenario() -> tuple[float, int]:
        q = queue()
        started = now()
        for delay in delays:
            q.add_after("a", delay)
        q.done(await q.get())
        first = now() - started
        await asyncio.sleep(100.0)
        return first, len(q)

    assert run(scenario()) == pytest.approx((10.0, 0))


def test_a_delay_of_zero_queues_at_once() -> None:
    async def scenario() -> int:
        q = queue()
        q.add_after("a", 0.0)
        return len(q)

    assert run(scenario()) == 1


def test_failures_in_a_row_double_the_delay_and_forget_starts_over() -> None:
    async def scenario() -> list[float]:
        q = queue(backoff=Backoff(base_seconds=1.0, maximum_seconds=10.0, jitter=0.0))
        delays = [q.add_rate_limited("a") for _ in range(6)]
        q.forget("a")
        return [*delays, q.add_rate_limited("a")]

    assert run(scenario()) == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 1.0]


def test_the_common_rate_limits_many_keys_together() -> None:
    async def scenario() -> list[float]:
        q = queue(bucket=TokenBucket(per_second=2.0, burst=3), backoff=Backoff(jitter=0.0))
        return [q.add_rate_limited(str(number)) for number in range(6)]

    assert run(scenario()) == pytest.approx([0.005, 0.005, 0.005, 0.5, 1.0, 1.5])


def test_a_cancelled_worker_passes_its_wake_up_on() -> None:
    async def scenario() -> str:
        q = queue()
        first = asyncio.create_task(q.get())
        second = asyncio.create_task(q.get())
        await asyncio.sleep(0)
        q.add("a")
        first.cancel()
        return await second

    assert run(scenario()) == "a"


def test_nothing_fires_after_close() -> None:
    async def scenario() -> int:
        q = queue()
        q.add_after("a", 5.0)
        q.close()
        await asyncio.sleep(10.0)
        return len(q)

    assert run(scenario()) == 0


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, float]] = []

    def added(self) -> None:
        self.lines.append(("added", 0.0))

    def taken(self, waited_seconds: float) -> None:
        self.lines.append(("taken", waited_seconds))

    def finished(self, worked_seconds: float) -> None:
        self.lines.append(("finished", worked_seconds))

    def retried(self) -> None:
        self.lines.append(("retried", 0.0))


def test_the_observer_hears_waiting_and_working_times() -> None:
    log = Log()

    async def scenario() -> tuple[float, ...]:
        q = queue(observer=log, backoff=Backoff(jitter=0.0))
        q.add("a")
        await asyncio.sleep(2.0)
        key = await q.get()
        await asyncio.sleep(3.0)
        running = q.running_seconds()
        q.done(key)
        q.add_rate_limited("a")
        return running

    assert run(scenario()) == pytest.approx((3.0,))
    assert log.lines == [
        ("added", 0.0),
        ("taken", pytest.approx(2.0)),
        ("finished", pytest.approx(3.0)),
        ("retried", 0.0),
    ]


@given(
    failures=st.integers(0, 200),
    random=st.floats(0, 1, exclude_max=True),
    base=st.floats(0.001, 10),
    maximum=st.floats(10, 2000),
)
def test_a_backoff_never_leaves_its_bounds(failures: int, random: float, base: float, maximum: float) -> None:
    delay = Backoff(base, maximum, jitter=0.1).delay(failures, random)
    assert base <= delay <= maximum


@given(st.lists(st.floats(0, 5), min_size=1, max_size=60))
def test_a_bucket_never_grants_more_than_burst_and_rate_allow(gaps: list[float]) -> None:
    bucket = TokenBucket(per_second=2.0, burst=4)
    moment = 0.0
    granted: list[float] = []
    for gap in gaps:
        moment += gap
        granted.append(moment + bucket.reserve(moment))
    for start in granted:
        in_window = [time for time in granted if start <= time < start + 10.0 - 1e-6]
        assert len(in_window) <= 4 + 10.0 * 2.0 + 1


@given(st.lists(st.sampled_from(["add a", "add b", "get", "done"]), max_size=60))
def test_no_added_key_is_ever_lost(steps: list[str]) -> None:
    async def scenario() -> None:
        q = queue()
        held: list[str] = []
        wanted: set[str] = set()
        for step in steps:
            if step.startswith("add"):
                q.add(step[-1])
                wanted.add(step[-1])
            elif step == "get" and len(q):
                key = await q.get()
                assert key not in held
                held.append(key)
                wanted.discard(key)
            elif step == "done" and held:
                q.done(held.pop(0))
        while held:
            q.done(held.pop())
        rest = {await q.get() for _ in range(len(q))}
        assert rest == wanted

    run(scenario())
