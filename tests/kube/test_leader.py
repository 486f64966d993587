from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from e2e.controlplane.fixtures import Kubectl
from stowage.kube.client import KubeClient
from stowage.kube.errors import AlreadyExists, Conflict, NotFound, Unreachable
from stowage.kube.leader import Leadership, LeadershipLost, LeaseTimes
from stowage.world import ObjectRef
from tests.kube.fake_time import run

LEASE = ObjectRef("coordination.k8s.io/v1", "Lease", "default", "stowage")


class LeaseServer:
    """Holds one Lease; `broken` makes every request fail, `hangs` makes it wait for ever."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.broken = False
        self.hangs = False

    async def get(self, ref: ObjectRef, timeout_seconds: float) -> dict[str, Any]:
        await self._weather(timeout_seconds)
        if self.lease is None:
            raise NotFound(404, "NotFound", "no Lease")
        return {**self.lease}

    async def create(self, obj: dict[str, Any], timeout_seconds: float) -> dict[str, Any]:
        await self._weather(timeout_seconds)
        if self.lease is not None:
            raise AlreadyExists(409, "AlreadyExists", "there is one")
        return self._keep(obj)

    async def replace(self, obj: dict[str, Any], timeout_seconds: float) -> dict[str, Any]:
        await self._weather(timeout_seconds)
        if (
            self.lease is None
            or obj["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]
        ):
            raise Conflict(409, "Conflict", "another version")
        return self._keep(obj)

    async def _weather(self, timeout_seconds: float) -> None:
        if self.hangs:
            await asyncio.sleep(timeout_seconds)
            raise Unreachable(0, "Unreachable", "timed out")
        if self.broken:
            raise Unreachable(0, "Unreachable", "connection refused")

    def _keep(self, obj: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        metadata = {**obj["metadata"], "resourceVersion": str(self.version)}
        self.lease = {**obj, "metadata": metadata}
        return {**self.lease}


def candidate(server: LeaseServer, name: str) -> Leadership:
    return Leadership(server, LEASE, name, LeaseTimes())  # type: ignore[arg-type]


def holder(server: LeaseServer) -> Any:
    return server.lease["spec"]["holderIdentity"] if server.lease else None


def test_a_leader_stays_leader_while_it_can_renew() -> None:
    server = LeaseServer()

    async def scenario() -> bool:
        leader = candidate(server, "one")
        await leader.acquire()
        holding = asyncio.create_task(leader.hold())
        await asyncio.sleep(300.0)
        alive = not holding.done()
        holding.cancel()
        return alive

    assert run(scenario())
    assert holder(server) == "one"


@pytest.mark.parametrize(
    ("weather", "at_most"),
    [
        pytest.param("broken", 12.1, id="refused connections count as failed renewals"),
        pytest.param("hangs", 12.1, id="requests that hang count as failed renewals, within their time-out"),
    ],
)
def test_a_leader_gives_up_when_its_last_renewal_is_older_than_the_deadline(
    weather: str, at_most: float
) -> None:
    server = LeaseServer()

    async def scenario() -> float:
        leader = candidate(server, "one")
        await leader.acquire()
        setattr(server, weather, True)
        started = asyncio.get_running_loop().time()
        with pytest.raises(LeadershipLost, match="not renewed for 10 s"):
            await leader.hold()
        return asyncio.get_running_loop().time() - started

    assert 10.0 <= run(scenario()) <= at_most


def test_a_short_outage_is_survived() -> None:
    server = LeaseServer()

    async def scenario() -> bool:
        leader = candidate(server, "one")
        await leader.acquire()
        holding = asyncio.create_task(leader.hold())
        server.broken = True
        await asyncio.sleep(7.0)
        server.broken = False
        await asyncio.sleep(60.0)
        alive = not holding.done()
        holding.cancel()
        return alive

    assert run(scenario())


def test_a_leader_that_finds_another_holder_ends_at_once() -> None:
    server = LeaseServer()

    async def scenario() -> None:
        leader = candidate(server, "one")
        await leader.acquire()
        assert server.lease is not None
        renewed = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {**server.lease["spec"], "holderIdentity": "two", "renewTime": renewed}
        server._keep({**server.lease, "spec": spec})
        with pytest.raises(LeadershipLost, match="held by two"):
            await leader.hold()

    run(scenario())


def test_a_released_lease_is_taken_over_at_once() -> None:
    server = LeaseServer()

    async def scenario() -> float:
        first, second = candidate(server, "one"), candidate(server, "two")
        await first.acquire()
        waiting = asyncio.create_task(second.acquire())
        await asyncio.sleep(5.0)
        assert not waiting.done()
        await first.release()
        released = asyncio.get_running_loop().time()
        await waiting
        return asyncio.get_running_loop().time() - released

    assert run(scenario()) <= 2.0
    assert holder(server) == "two"
    assert server.lease is not None
    assert server.lease["spec"]["leaseTransitions"] == 1


def test_release_leaves_the_lease_of_somebody_else_alone() -> None:
    server = LeaseServer()

    async def scenario() -> None:
        first = candidate(server, "one")
        await first.acquire()
        assert server.lease is not None
        server._keep({**server.lease, "spec": {**server.lease["spec"], "holderIdentity": "two"}})
        await first.release()

    run(scenario())
    assert holder(server) == "two"


def test_the_lease_says_the_time_in_utc() -> None:
    server = LeaseServer()
    run(candidate(server, "one").acquire())
    assert server.lease is not None
    written = datetime.fromisoformat(server.lease["spec"]["renewTime"])
    assert abs(datetime.now(UTC) - written) < timedelta(seconds=60)
    assert server.lease["spec"]["renewTime"].endswith("Z")


@pytest.mark.cluster
async def test_of_two_candidates_one_leads_and_the_other_follows_after_its_release(
    client: KubeClient, namespace: str, kubectl: Kubectl
) -> None:
    lease = LEASE._replace(namespace=namespace)
    times = LeaseTimes(duration=4.0, deadline=3.0, period=1.0)
    first, second = (Leadership(client, lease, name, times) for name in ("one", "two"))
    await first.acquire()
    holding = asyncio.create_task(first.hold())
    waiting = asyncio.create_task(second.acquire())
    await asyncio.sleep(2.5)
    assert not waiting.done()
    assert not holding.done()
    holding.cancel()
    await first.release()
    async with asyncio.timeout(10.0):
        await waiting
    shown = kubectl(
        "get", "lease", "stowage", "-n", namespace, "-o", "jsonpath={.spec.holderIdentity}"
    ).stdout
    assert shown == "two"


@pytest.mark.cluster
async def test_a_lease_taken_by_force_ends_the_leader(
    client: KubeClient, namespace: str, kubectl: Kubectl
) -> None:
    times = LeaseTimes(duration=4.0, deadline=3.0, period=1.0)
    leader = Leadership(client, LEASE._replace(namespace=namespace), "one", times)
    await leader.acquire()
    patch = '{"spec":{"holderIdentity":"thief","leaseDurationSeconds":3600}}'
    kubectl("patch", "lease", "stowage", "-n", namespace, "--type=merge", "-p", patch)
    with pytest.raises(LeadershipLost, match="thief"):
        async with asyncio.timeout(10.0):
            await leader.hold()
