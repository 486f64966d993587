"""Watches and LISTs against the real API server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from e2e.controlplane.cluster import Cluster
from e2e.controlplane.fixtures import Kubectl
from stowage.feed import kopf_feed
from stowage.feed.kopf_feed import KopfFeed
from stowage.feed.resync import Resync
from stowage.feed.watchdog import WatchDied, Watchdog
from stowage.kube.client import KubeClient
from stowage.kube.kinds import CONFIG_MAP, POD, Kind
from stowage.world import Key, Outcome
from tests.feed.pod_monitors import PodMonitors
from tests.feed.shipped_files import CRD, CRD_NAME
from tests.feed.test_hub import Rig
from tests.kube.objects import labels, pod

pytestmark = pytest.mark.cluster

Seen = list[tuple[str, str, bool]]


@pytest.fixture
def crd(cluster: Cluster) -> None:
    cluster.kubectl("apply", "-f", str(CRD))
    cluster.kubectl("wait", "--for=condition=Established", CRD_NAME, "--timeout=30s")


@pytest_asyncio.fixture
async def seen(client: KubeClient, namespace: str, crd: None) -> AsyncIterator[Seen]:
    """What the watches of one namespace deliver: (kind, name, deleted)."""
    events: Seen = []

    def observe(kind: Kind, obj: Mapping[str, Any], deleted: bool) -> None:
        if obj["metadata"].get("namespace") == namespace:
            events.append((kind.kind, obj["metadata"]["name"], deleted))

    feed = KopfFeed(client.configuration, observe, (namespace,))
    task = asyncio.create_task(feed.run())
    yield events
    assert not task.done()
    task.cancel()
    async with asyncio.timeout(5.0):
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def make(kubectl: Kubectl, namespace: str, *objects: dict[str, Any]) -> None:
    items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    kubectl("apply", "-n", namespace, "-f", "-", input_text=json.dumps(items))


def own_map(name: str) -> dict[str, Any]:
    metadata = {"name": name, "labels": labels()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {}}


def plain(item: dict[str, Any]) -> dict[str, Any]:
    """A pod that the API server takes: without the fields that it sets itself."""
    del item["metadata"]["uid"], item["metadata"]["resourceVersion"], item["metadata"]["namespace"]
    del item["status"]
    item["spec"]["containers"][0]["image"] = "none"
    return item


async def test_the_watches_deliver_ours_and_all_pods(seen: Seen, kubectl: Kubectl, namespace: str) -> None:
    foreign = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "foreign"}, "data": {}}
    make(kubectl, namespace, foreign, own_map("ours"), plain(pod("foreign-pod")))
    await until(lambda: ("ConfigMap", "ours", False) in seen and ("Pod", "foreign-pod", False) in seen)
    assert ("ConfigMap", "foreign", False) not in seen
    kubectl("delete", "cm", "ours", "-n", namespace)
    await until(lambda: ("ConfigMap", "ours", True) in seen)


async def test_the_watches_go_on_when_the_credentials_expire(
    client: KubeClient, kubectl: Kubectl, namespace: str, shipped: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kopf_feed, "_LOGIN_PERIOD", timedelta(seconds=2))
    monkeypatch.setattr(kopf_feed, "_WATCH_SECONDS", 1)
    logins: list[int] = []

    class Counted:
        """The client's configuration with a token, as a service account has one; counts who asks for it."""

        def __getattr__(self, name: str) -> Any:
            return getattr(client.configuration, name)

        async def auth_settings(self) -> dict[str, Any]:
            logins.append(1)
            return {"BearerToken": {"value": f"Bearer {token}"}}

    token = kubectl("create", "token", "stowage", "-n", "stowage-system").stdout.strip()
    seen: list[str] = []
    feed = KopfFeed(Counted(), lambda kind, obj, deleted: seen.append(obj["metadata"]["name"]), (namespace,))
    task = asyncio.create_task(feed.run())
    try:
        for number in range(4):
            make(kubectl, namespace, own_map(f"map-{number}"))
            await until(lambda number=number: f"map-{number}" in seen)  # type: ignore[misc]
            await asyncio.sleep(1.5)
        assert not task.done()
        assert len(logins) >= 2
        assert seen.count("map-0") <= 2
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_pod_that_has_ended_leaves_the_watch(seen: Seen, kubectl: Kubectl, namespace: str) -> None:
    make(kubectl, namespace, plain(pod("short", own="llama", role="inspect")))
    await until(lambda: ("Pod", "short", False) in seen)
    patch = '{"status":{"phase":"Failed"}}'
    kubectl("patch", "pod", "short", "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)
    await until(lambda: ("Pod", "short", True) in seen)


async def test_a_watch_that_ends_ends_the_feed(
    client: KubeClient, cluster: Cluster, kubectl: Kubectl, crd: None
) -> None:
    feed = KopfFeed(client.configuration, lambda kind, obj, deleted: None, ())
    spawned = asyncio.Event()
    task = asyncio.create_task(feed.run(spawned.set))
    try:
        await spawned.wait()
        await until(lambda: any(t.get_name().startswith("watcher for") for t in asyncio.all_tasks()))
        await asyncio.sleep(3.0)
        watch = next(t for t in asyncio.all_tasks() if t.get_name().startswith("watcher for llmd"))
        watch.cancel()
        with pytest.raises(WatchDied, match="llmdeployments"):
            async with asyncio.timeout(30.0):
                await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def rig() -> Rig:
    return Rig(lambda world, now: Outcome())


async def test_a_round_fills_the_store_prunes_ghosts_and_wakes_everybody(
    client: KubeClient, kubectl: Kubectl, namespace: str, crd: None
) -> None:
    make(kubectl, namespace, own_map("ours"), plain(pod("foreign-pod")))
    subject, ghosts = rig(), list[int]()
    resync = Resync(client, subject.hub, Watchdog(300.0), (namespace,), ghosts.append)
    await resync.round()
    key = Key(namespace, "llama")
    assert [ref.name for ref in subject.store.children(key)] == ["ours"]
    woken = set()
    while len(subject.queue):
        woken.add(await subject.queue.get())
    assert key in woken
    kubectl("delete", "cm", "ours", "-n", namespace)
    await resync.round()
    assert subject.store.children(key) == {}
    assert ghosts == [1]


async def test_the_watchdog_learns_what_a_round_brought(
    client: KubeClient, kubectl: Kubectl, namespace: str, crd: None
) -> None:
    subject, watchdog = rig(), Watchdog(300.0)
    resync = Resync(client, subject.hub, watchdog, (namespace,), lambda count: None)
    await resync.round()
    make(kubectl, namespace, own_map("unseen"))
    await resync.round()
    now = asyncio.get_running_loop().time()
    watchdog.check(now)
    with pytest.raises(WatchDied):
        watchdog.check(now + 301.0)


async def test_optional_kinds_are_rediscovered(
    client: KubeClient, namespace: str, crd: None, pod_monitors: PodMonitors
) -> None:
    subject = rig()
    resync = Resync(client, subject.hub, Watchdog(300.0), (namespace,), lambda count: None)
    await resync.round()
    assert subject.knowledge.world(Key(namespace, "llama")).installed_kinds == frozenset()
    await asyncio.to_thread(pod_monitors.install)
    await resync.round()
    kinds = subject.knowledge.world(Key(namespace, "llama")).installed_kinds
    assert kinds == {"monitoring.coreos.com/v1/PodMonitor"}


async def test_a_list_leaves_ended_pods_out(
    client: KubeClient, kubectl: Kubectl, namespace: str, crd: None
) -> None:
    make(kubectl, namespace, plain(pod("short")))
    live, after = rig(), rig()
    await Resync(client, live.hub, Watchdog(300.0), (namespace,), lambda count: None).round()
    patch = '{"status":{"phase":"Failed"}}'
    kubectl("patch", "pod", "short", "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)
    await Resync(client, after.hub, Watchdog(300.0), (namespace,), lambda count: None).round()
    # Pods are listed in all namespaces, and other tests may have left some.
    assert after.store.counts().get(POD.kind, 0) == live.store.counts()[POD.kind] - 1
    assert after.store.counts().get(CONFIG_MAP.kind, 0) == 0
