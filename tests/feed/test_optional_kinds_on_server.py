"""A kind that comes and goes while the operator is at work, on the real API server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from e2e.controlplane.fixtures import Kubectl
from stowage.feed import kopf_feed
from stowage.feed.kopf_feed import KopfFeed
from stowage.feed.optional_watches import OptionalWatches
from stowage.feed.resync import Resync, ResyncTimes
from stowage.feed.watchdog import WatchDied, Watchdog
from stowage.kube.client import KubeClient
from stowage.kube.kinds import POD_MONITOR, Kind
from stowage.world import Key, ObjectRef, Outcome
from tests.feed.pod_monitors import PodMonitors
from tests.feed.test_hub import Rig
from tests.kube.objects import labels

pytestmark = pytest.mark.cluster


class Running:
    """Resync and optional watches of one namespace; `delivered` is what the watches brought."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self.rig = Rig(lambda world, now: Outcome())
        self.delivered: list[tuple[str, bool]] = []
        self.watches = OptionalWatches(again_seconds=0.5)
        self.resync = Resync(
            client, self.rig.hub, Watchdog(300.0), (namespace,), lambda _: None, self.watches.want
        )
        self._client, self._namespace = client, namespace

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.resync.run(ResyncTimes(interval=600.0, first=600.0, check=0.5)))
            group.create_task(self.watches.run(self._watch, self.resync.rediscover))

    @property
    def kinds(self) -> frozenset[Kind]:
        return self.rig.knowledge.optional_kinds

    async def _watch(self, kind: Kind) -> None:
        def observe(kind: Kind, obj: Any, deleted: bool) -> None:
            self.delivered.append((obj["metadata"]["name"], deleted))
            self.rig.hub.observe(kind, obj, deleted=deleted)

        await KopfFeed(self._client.configuration, observe, (self._namespace,), (kind,)).run()


@pytest_asyncio.fixture
async def running(
    client: KubeClient, namespace: str, shipped: None, pod_monitors: PodMonitors
) -> AsyncIterator[Running]:
    subject = Running(client, namespace)
    await subject.resync.round()
    task = asyncio.create_task(subject.run())
    yield subject
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def make(kubectl: Kubectl, namespace: str, name: str) -> None:
    monitor = {
        "apiVersion": POD_MONITOR.api_version,
        "kind": POD_MONITOR.kind,
        "metadata": {"name": name, "labels": labels()},
    }
    kubectl("apply", "-n", namespace, "-f", "-", input_text=json.dumps(monitor))


async def test_a_kind_is_watched_from_when_it_appears_until_it_goes_and_again_when_it_returns(
    running: Running, pod_monitors: PodMonitors, kubectl: Kubectl, namespace: str
) -> None:
    key = Key(namespace, "llama")
    assert running.kinds == frozenset()
    for name in ("first", "second"):
        ref = ObjectRef(POD_MONITOR.api_version, POD_MONITOR.kind, namespace, name)
        await asyncio.to_thread(pod_monitors.install)
        await until(lambda: running.kinds == {POD_MONITOR})
        await asyncio.to_thread(make, kubectl, namespace, name)
        await until(lambda name=name: (name, False) in running.delivered)  # type: ignore[misc]
        assert set(running.rig.store.children(key)) == {ref}
        assert running.rig.knowledge.world(key).installed_kinds == {str(POD_MONITOR)}

        await asyncio.to_thread(pod_monitors.remove)
        await until(lambda: running.kinds == frozenset())
        assert running.rig.store.children(key) == {}
        await until(lambda: not _watches())


def _watches() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name().startswith("watcher for podmonitors")]


async def test_a_watch_that_ends_is_begun_again_while_its_kind_is_there(
    running: Running, pod_monitors: PodMonitors, kubectl: Kubectl, namespace: str
) -> None:
    await asyncio.to_thread(pod_monitors.install)
    await until(lambda: len(_watches()) == 1)
    # The guard looks every other second: it has to know a watch before it can miss it.
    await asyncio.sleep(2.5)
    (watch,) = _watches()
    watch.cancel()
    await until(watch.done)
    await asyncio.to_thread(make, kubectl, namespace, "later")
    await until(lambda: ("later", False) in running.delivered)


async def test_a_watch_of_a_kind_that_is_missing_does_not_begin_and_says_so(
    client: KubeClient, shipped: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kopf_feed, "_START_SECONDS", 1.0)
    feed = KopfFeed(client.configuration, lambda kind, obj, deleted: None, (), (POD_MONITOR,))
    with pytest.raises(WatchDied, match=r"podmonitors.v1.monitoring.coreos.com@None has not begun"):
        async with asyncio.timeout(30.0):
            await feed.run()
