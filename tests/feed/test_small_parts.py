"""Verdicts, grants, fan-out, news, retries, watchdog: the small parts that the hub is made of."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable
from typing import Any

import pytest

from stowage.api.conditions import Reason
from stowage.feed.fan_out import FanOut
from stowage.feed.grants import Grants
from stowage.feed.news import is_news
from stowage.feed.retries import retry_seconds
from stowage.feed.verdicts import Verdicts
from stowage.feed.watchdog import WatchDied, Watchdog
from stowage.kube.kinds import DEPLOYMENT, NODE, POD
from stowage.kube.store import Store
from stowage.world import Key, Outcome
from stowage_runtime.contract import EngineFacts, Failure, Progress, RuntimeReport, Utilization
from tests.feed.test_demand import deployment
from tests.kube.fake_time import run
from tests.kube.objects import KEY, llm, pod

OTHER = Key("default", "other")


def report(**changes: Any) -> RuntimeReport:
    moment = "2026-01-01T00:00:00Z"
    base = RuntimeReport(phase="Serving", phase_since=moment, started_at=moment, launch_hash="0" * 64)
    return dataclasses.replace(base, **changes)


def utilization(kv_usage: float, running: int = 1) -> Utilization:
    return Utilization(kv_usage, running, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("told", "now", "expected"),
    [
        pytest.param(None, report(), True, id="the first report of a pod"),
        pytest.param(report(), report(), False, id="the same again"),
        pytest.param(report(phase="Loading"), report(), True, id="another phase"),
        pytest.param(report(), report(utilization=utilization(0.0, 0)), True, id="the first figures"),
        pytest.param(
            report(utilization=utilization(0.50)),
            report(utilization=utilization(0.54)),
            False,
            id="four points of KV cache",
        ),
        pytest.param(
            report(utilization=utilization(0.50)),
            report(utilization=utilization(0.55)),
            True,
            id="five points of KV cache",
        ),
        pytest.param(
            report(utilization=utilization(0.0, 0)),
            report(utilization=utilization(0.01, 2)),
            True,
            id="from idle to busy",
        ),
        pytest.param(
            report(),
            report(engine=EngineFacts(kv_cache_tokens=100)),
            True,
            id="the engine names its KV cache",
        ),
        pytest.param(report(), report(failure=Failure("EngineExited", "gone")), True, id="a failure"),
        pytest.param(
            report(phase="Fetching", progress=Progress(10, 100)),
            report(phase="Fetching", progress=Progress(14, 100)),
            False,
            id="four points of the download",
        ),
        pytest.param(
            report(phase="Fetching", progress=Progress(10, 100)),
            report(phase="Fetching", progress=Progress(15, 100)),
            True,
            id="five points of the download",
        ),
    ],
)
def test_news(told: RuntimeReport | None, now: RuntimeReport, expected: bool) -> None:
    assert is_news(now, told) is expected


@pytest.mark.parametrize(
    ("reason", "failures", "seconds"),
    [
        pytest.param(Reason.HUB_UNREACHABLE, 1, 5.0, id="an unreachable Hub is soon tried again"),
        pytest.param(Reason.HUB_UNREACHABLE, 3, 20.0, id="and then slower"),
        pytest.param(Reason.HUB_UNREACHABLE, 50, 600.0, id="but at least every ten minutes"),
        pytest.param(Reason.MODEL_NOT_FOUND, 1, 300.0, id="a missing model may be uploaded later"),
        pytest.param(Reason.INVALID_MODEL_CONFIG, 1, None, id="a broken config.json needs an edit"),
    ],
)
def test_retries(reason: Reason, failures: int, seconds: float | None) -> None:
    assert retry_seconds(reason, failures) == seconds


def aged(name: str, created: str, **metadata: Any) -> tuple[Key, dict[str, Any]]:
    return Key("default", name), llm(name, creationTimestamp=created, **metadata)


@pytest.mark.parametrize(
    ("others", "known", "expected"),
    [
        pytest.param([aged("old", "2025-01-01T00:00:00Z")], True, ["old"], id="an older one goes first"),
        pytest.param([aged("new", "2027-01-01T00:00:00Z")], True, [], id="a younger one does not"),
        pytest.param([aged("a", "2026-01-01T00:00:00Z")], True, ["a"], id="of one second the name decides"),
        pytest.param([aged("z", "2026-01-01T00:00:00Z")], True, [], id="a later name waits"),
        pytest.param(
            [aged("old", "2025-01-01T00:00:00Z")], False, [], id="without a model nobody is waited for"
        ),
        pytest.param(
            [aged("old", "2025-01-01T00:00:00Z", deletionTimestamp="2026-01-01T00:00:00Z")],
            True,
            [],
            id="what is being deleted is not waited for",
        ),
        pytest.param(
            [aged("b", "2025-02-01T00:00:00Z"), aged("c", "2025-01-01T00:00:00Z")],
            True,
            ["c", "b"],
            id="the oldest comes first",
        ),
    ],
)
def test_who_is_ahead(others: list[tuple[Key, dict[str, Any]]], known: bool, expected: list[str]) -> None:
    resources = [aged("llama", "2026-01-01T00:00:00Z"), *others]
    ahead = Verdicts().ahead(KEY, resources, lambda key: known)
    assert [key.name for key in ahead] == expected


def test_a_verdict_counts_for_its_generation_only() -> None:
    verdicts = Verdicts()
    assert verdicts.give(KEY, llm())
    assert not verdicts.give(KEY, llm())
    assert not verdicts.is_waiting(KEY, llm())
    assert verdicts.is_waiting(KEY, llm(generation=2))
    assert verdicts.is_waiting(KEY, llm(uid="a successor of the same name"))


def test_a_grant_is_seen_by_others_at_once_and_not_by_its_owner() -> None:
    store = Store()
    grants = Grants(store)
    grants.book(KEY, Outcome(apply=(deployment(2, 4),)))
    assert [len(item.pods) for item in grants.waiting(OTHER)] == [2]
    assert grants.waiting(KEY) == []


def test_a_dropped_grant_leaves_what_the_live_deployment_asks_for() -> None:
    store = Store()
    live = deployment(1, 4)
    live["metadata"] |= {"uid": "d", "resourceVersion": "5"}
    store.observe(DEPLOYMENT, live)
    grants = Grants(store)
    grants.book(KEY, Outcome(apply=(deployment(3, 4),)))
    assert [len(item.pods) for item in grants.waiting(OTHER)] == [3]
    grants.drop(KEY)
    assert [len(item.pods) for item in grants.waiting(OTHER)] == [1]


def test_a_grant_shrinks_as_its_pods_are_bound() -> None:
    store = Store()
    grants = Grants(store)
    grants.book(KEY, Outcome(apply=(deployment(2, 4),)))
    store.observe(POD, pod("llama-1", node="n1", gpus=4, own="llama"))
    assert [len(item.pods) for item in grants.waiting(OTHER)] == [1]
    store.observe(POD, pod("llama-2", node="n1", gpus=4, own="llama"))
    assert grants.waiting(OTHER) == []


def test_fan_out_fires_at_once_then_at_most_once_per_interval() -> None:
    fired: list[tuple[float, set[str]]] = []

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        begin = loop.time()

        def fire(scopes: Iterable[str]) -> None:
            fired.append((loop.time() - begin, set(scopes)))

        fan = FanOut(fire, 5.0)
        for number in range(40):
            fan.trigger("nodes" if number % 2 else "pods")
            await asyncio.sleep(0.3)
        await asyncio.sleep(20.0)

    run(scenario())
    assert [round(moment) for moment, _ in fired] == [0, 5, 10, 15]
    assert fired[1][1] == {"nodes", "pods"}


def test_a_watch_that_delivers_late_is_alive() -> None:
    dog = Watchdog(patience_seconds=300.0)
    dog.listed(POD, [("u1", "7"), ("u2", "9")], now=0.0)
    dog.delivered(POD, "u1", "8")
    dog.delivered(POD, "u2", "9")
    dog.check(now=1000.0)


@pytest.mark.parametrize(
    "delivery",
    [
        pytest.param(None, id="nothing was delivered"),
        pytest.param(("u1", "6"), id="only an older version was delivered"),
    ],
)
def test_a_watch_without_what_a_list_shows_is_dead_after_its_patience(
    delivery: tuple[str, str] | None,
) -> None:
    dog = Watchdog(patience_seconds=300.0)
    dog.listed(NODE, [("u1", "7")], now=0.0)
    dog.listed(NODE, [("u1", "8")], now=200.0)
    if delivery is not None:
        dog.delivered(NODE, *delivery)
    dog.check(now=299.0)
    with pytest.raises(WatchDied, match="Node"):
        dog.check(now=301.0)


def test_what_is_gone_need_not_be_delivered() -> None:
    dog = Watchdog(patience_seconds=300.0)
    dog.listed(POD, [("gone", "7"), ("deleted", "8")], now=0.0)
    dog.delivered(POD, "deleted", "9", deleted=True)
    dog.keep_only(POD, set())
    dog.check(now=1000.0)
