"""Being the only operator at work: a Lease, held and renewed, or the process ends.

The client library's elector decides who may take the Lease; its lock is replaced by one with a time-out of seconds
(its own is five minutes) for which every kind of failure is a failed renewal. A leader whose last renewal is older
than the deadline must stop at once: another one may already be writing. The Lease is given back on a graceful stop.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.leaderelectionrecord import LeaderElectionRecord

from stowage.kube.client import KubeClient
from stowage.kube.errors import ApiError
from stowage.kube.kinds import LEASE
from stowage.world import ObjectRef

logger = logging.getLogger(__name__)
# The library logs every failed round as an error with a traceback; this module says it in one line.
logging.getLogger("kubernetes.aio.leaderelection").setLevel(logging.CRITICAL)


class LeadershipLost(Exception):
    """The Lease could not be renewed in time, or somebody else holds it."""


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """Seconds: how long a Lease is good for, when a leader gives up, how often it renews, and per request."""

    duration: float = 15.0
    deadline: float = 10.0
    period: float = 2.0
    request: float = 5.0


class Leadership:
    """One candidate for one Lease."""

    def __init__(self, client: KubeClient, lease: ObjectRef, identity: str, times: LeaseTimes) -> None:
        self._times = times
        self._lock = _LeaseLock(client, lease, identity, times.request)
        # The callbacks belong to the library's own loop, which is not used: it cannot tell why it ended.
        config = Config(self._lock, times.duration, times.deadline, times.period, _unused, _unused)
        self._election = LeaderElection(config)
        self._renewed_at: float | None = None

    @property
    def identity(self) -> str:
        """What this candidate writes into the Lease."""
        return self._lock.identity

    async def acquire(self) -> None:
        """Wait until the Lease is ours."""
        while True:
            if await self._attempt(self._times.request):
                return
            await asyncio.sleep(self._times.period)

    async def hold(self) -> None:
        """Renew for ever; raises LeadershipLost."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._times.period)
            left = self._times.deadline - (loop.time() - self._last_renewal())
            if left <= 0:
                raise LeadershipLost(f"the Lease was not renewed for {self._times.deadline:.0f} s")
            if not await self._attempt(min(left, self._times.request)) and self._other_holder():
                raise LeadershipLost(f"the Lease is held by {self._other_holder()}")

    async def release(self) -> None:
        """Give the Lease back if it is ours, so that the next leader need not wait; failures are only logged."""
        if self._renewed_at is None:
            return
        try:
            async with asyncio.timeout(self._times.request):
                await self._lock.release()
        except (ApiError, TimeoutError) as error:
            logger.warning("The Lease could not be released: %s", error)

    async def _attempt(self, seconds: float) -> bool:
        started = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(seconds):
                succeeded = bool(await self._election.try_acquire_or_renew())
        except (ApiError, TimeoutError) as error:
            logger.warning("The Lease could not be read or renewed: %s", str(error) or type(error).__name__)
            return False
        if succeeded:
            # What others see counts from when the request was made, not from when its answer came.
            self._renewed_at = started
        return succeeded

    def _last_renewal(self) -> float:
        if self._renewed_at is None:
            raise LeadershipLost("the Lease was never acquired")
        return self._renewed_at

    def _other_holder(self) -> str | None:
        record = self._election.observed_record
        holder = record.holder_identity if record is not None else None
        return None if holder == self._lock.identity else holder


async def _unused() -> None:
    """Stands where the library wants callbacks."""


class _LeaseLock:
    """The lock that the library's elector reads and writes, on plain dictionaries."""

    def __init__(self, client: KubeClient, lease: ObjectRef, identity: str, timeout_seconds: float) -> None:
        self._client = client
        self._lease = lease
        self._timeout_seconds = timeout_seconds
        self._live: dict[str, Any] = {}
        self.name = lease.name
        self.namespace = lease.namespace
        self.identity = identity

    async def get(self, _name: str, _namespace: str) -> tuple[bool, Any]:
        """What the Lease says now; (False, 404) when there is none. Other failures are raised."""
        try:
            self._live = await self._client.get(self._lease, self._timeout_seconds)
        except ApiError as error:
            if error.status != 404:
                raise
            # The elector knows an absent Lease by this code in the body.
            return False, ApiException(status=404, reason="NotFound", body='{"code": 404}')
        spec = self._live.get("spec") or {}
        duration = spec.get("leaseDurationSeconds")
        record = LeaderElectionRecord(
            spec.get("holderIdentity") or None,
            str(duration) if duration else None,
            _local_text(spec.get("acquireTime")),
            _local_text(spec.get("renewTime")),
        )
        return True, record

    async def create(self, name: str, namespace: str, election_record: Any) -> bool:
        """Make the Lease; False when somebody was faster."""
        metadata = {"name": name, "namespace": namespace}
        body = {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata}
        return await self._try(self._client.create, {**body, "spec": self._spec(election_record, {})})

    async def update(self, _name: str, _namespace: str, updated_record: Any) -> bool:
        """Write over the version that was read; False when somebody was faster."""
        spec = self._spec(updated_record, self._live.get("spec") or {})
        return await self._try(self._client.replace, {**self._live, "spec": spec})

    async def release(self) -> None:
        """Leave the Lease without a holder if it is still ours."""
        live = await self._client.get(self._lease, self._timeout_seconds)
        spec = live.get("spec") or {}
        if spec.get("holderIdentity") != self.identity:
            return
        spec = {**spec, "holderIdentity": "", "leaseDurationSeconds": 1}
        await self._client.replace({**live, "spec": spec}, self._timeout_seconds)

    async def _try(self, request: Any, body: dict[str, Any]) -> bool:
        try:
            self._live = await request(body, self._timeout_seconds)
        except ApiError as error:
            if error.status != 409:
                raise
            return False
        return True

    def _spec(self, record: Any, before: dict[str, Any]) -> dict[str, Any]:
        changed = before.get("holderIdentity") != record.holder_identity
        return {
            "holderIdentity": record.holder_identity,
            "leaseDurationSeconds": int(float(record.lease_duration)),
            "acquireTime": _utc_text(record.acquire_time),
            "renewTime": _utc_text(record.renew_time),
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + (1 if changed and before else 0),
        }


def _local_text(moment: str | None) -> str | None:
    """RFC 3339 to what the elector writes: local time without a zone."""
    if not moment:
        return None
    return str(datetime.fromisoformat(moment).astimezone().replace(tzinfo=None))


def _utc_text(moment: str) -> str:
    """What the elector writes (local time without a zone) to the API's microseconds in UTC."""
    return datetime.fromisoformat(moment).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
