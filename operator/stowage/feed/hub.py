"""Turns news into work and work into writes: the workers' loop around the pure engine.

Whatever happens in the cluster ends as a key in the queue; a worker builds the World, asks the engine, and carries out
the Outcome. Between the World and the booking of what the Outcome asks for nothing waits, so no two workers can be
promised the same GPUs. Nothing is decided here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Any

from stowage.feed.fan_out import FanOut
from stowage.feed.job_pods import JobPods
from stowage.feed.snapshot import Knowledge
from stowage.feed.watchdog import Watchdog
from stowage.kube.applier import Applied, Applier
from stowage.kube.errors import ApiError, Forbidden, Invalid, Throttled
from stowage.kube.facts import is_server_pod, owner_key
from stowage.kube.kinds import POD, Kind
from stowage.kube.recorder import Recorder
from stowage.kube.store import Change
from stowage.kube.workqueue import WorkQueue
from stowage.telemetry import Telemetry
from stowage.world import Key, ObjectRef, Outcome, World

logger = logging.getLogger(__name__)

Engine = Callable[[World, datetime], Outcome]

_BLOCKED_RETRY_SECONDS = 5.0
_TAKEN_RETRY_SECONDS = 30.0
_MOST_SUSPECTS = 8


class _Behind(Exception):
    """The cache was behind the server: what was decided from it must be decided again before anything is said."""


class Scope(Enum):
    """Whom a change of the cluster's room concerns."""

    EVERYBODY = auto()
    THOSE_WHO_WAIT = auto()


@dataclass(frozen=True, slots=True)
class Tools:
    """What the hub works with; without `job_pods` pods of Jobs are known from their watch only."""

    engine: Engine
    applier: Applier
    recorder: Recorder
    queue: WorkQueue[Key]
    telemetry: Telemetry
    job_pods: JobPods | None = None


class Hub:
    """The one place where observations come in and outcomes go out."""

    def __init__(
        self, knowledge: Knowledge, tools: Tools, watchdog: Watchdog, fan_out_seconds: float
    ) -> None:
        self._knowledge = knowledge
        self._tools = tools
        self._watchdog = watchdog
        self._fan_out: FanOut[Scope] = FanOut(self._fan, fan_out_seconds)
        self._ended: dict[Key, set[ObjectRef]] = {}

    @property
    def knowledge(self) -> Knowledge:
        """What Worlds are made of."""
        return self._knowledge

    def observe(self, kind: Kind, obj: Mapping[str, Any], *, deleted: bool = False) -> None:
        """News from a watch; never waits and never fails."""
        metadata = obj["metadata"]
        self._watchdog.delivered(
            kind, metadata.get("uid", ""), metadata.get("resourceVersion", ""), deleted=deleted
        )
        if deleted and kind == POD:
            self._suspect(obj)
        self.react(self._knowledge.store.observe(kind, obj, deleted=deleted))

    def react(self, change: Change) -> None:
        """Queue whom a change concerns."""
        for key in change.keys:
            self._tools.queue.add(key)
        if change.nodes:
            self._fan_out.trigger(Scope.EVERYBODY)
        if change.usage or change.quota_namespaces:
            self._fan_out.trigger(Scope.THOSE_WHO_WAIT)

    def wake(self, key: Key, seconds: float = 0.0) -> None:
        """Look at a key, now or later."""
        self._tools.queue.add_after(key, seconds)

    def wake_all(self) -> None:
        """Look at every key that exists or left something behind."""
        store = self._knowledge.store
        for key in self._knowledge.by_age({*store.all_keys(), *store.owners()}):
            self._tools.queue.add(key)

    def review_all(self) -> None:
        """Look at every key, and whether a new plan would be better than the one in force."""
        self._knowledge.reviews.update(self._knowledge.store.all_keys())
        self.wake_all()

    async def work(self) -> None:
        """Process keys until cancelled; an error puts the key back with a back-off."""
        queue = self._tools.queue
        while True:
            key = await queue.get()
            try:
                with self._tools.telemetry.reconciling() as result:
                    result.name = await self.handle(key)
            finally:
                queue.done(key)
            # Work that needed no request would keep probes, the Lease and answers of others waiting.
            await asyncio.sleep(0)

    async def handle(self, key: Key) -> str:
        """Process one key and arrange for its next turn; gives success, requeue_after, requeue or error."""
        queue = self._tools.queue
        try:
            after = await self.process(key)
        except Throttled as error:
            queue.add_rate_limited(key, at_least=error.retry_after)
            return "requeue"
        except _Behind:
            queue.add_rate_limited(key)
            return "requeue"
        except ApiError as error:
            logger.warning("%s: %s", key, error)
            queue.add_rate_limited(key)
            return "error"
        except Exception:
            logger.exception("%s: reconciliation failed", key)
            self._excuse(key)
            queue.add_rate_limited(key)
            return "error"
        queue.forget(key)
        if after is None:
            return "success"
        queue.add_after(key, after)
        return "requeue_after"

    async def process(self, key: Key) -> float | None:
        """One reconciliation; gives the seconds after which to look again. Raises ApiError and _Behind."""
        await self._look_at_ended(key)
        if self._tools.job_pods is not None:
            self.react(await self._tools.job_pods.look(key))
        world = self._knowledge.world(key)
        if world.resource is None:
            self._forget(key)
            return None
        now = datetime.now(UTC)
        with self._tools.telemetry.deciding():
            outcome = self._tools.engine(world, now)
        # No await between the World and this booking.
        self._book(key, world.resource, outcome)
        if outcome.resolve is not None:
            self._knowledge.resolutions.want(outcome.resolve, now)
        return await self._carry_out(key, world.resource, outcome)

    def close(self) -> None:
        """Fan out nothing more."""
        self._fan_out.close()

    def _book(self, key: Key, resource: Mapping[str, Any], outcome: Outcome) -> None:
        knowledge = self._knowledge
        knowledge.grants.book(key, outcome)
        if outcome.planned and knowledge.verdicts.give(key, resource):
            self._wake_waiting(but=key)

    async def _carry_out(self, key: Key, resource: Mapping[str, Any], outcome: Outcome) -> float | None:
        refused: ApiError | None = None
        try:
            applied = await self._tools.applier.apply(key, resource["metadata"]["uid"], outcome.apply)
        except (Forbidden, Invalid) as error:
            # Status must still be written: it is how people learn what stands in the way.
            applied, refused = Applied(), error
            self._knowledge.grants.drop(key)
        self.react(applied.change)
        news = (self._taken_changed(key, applied), self._refusal_changed(key, refused))
        if any(news):
            return 0.0
        if applied.stale:
            raise _Behind
        if refused is None:
            await self._delete(key, outcome)
        await self._tell(key, resource["metadata"]["uid"], outcome)
        if refused is not None:
            raise refused
        return self._next_turn(key, outcome, applied)

    async def _delete(self, key: Key, outcome: Outcome) -> None:
        ended = set(outcome.delete) & set(self._knowledge.store.ended(key))
        removed = await self._tools.applier.delete(key, outcome.delete)
        self.react(removed.change)
        if ended:
            # No watch will say that these are gone.
            self._ended.setdefault(key, set()).update(ended)

    def _taken_changed(self, key: Key, applied: Applied) -> bool:
        """Keep what foreign objects hold; when that is news, the engine has to see it before anything is said."""
        taken = self._knowledge.taken
        before = taken.pop(key, {})
        if applied.taken:
            taken[key] = applied.taken
            self._knowledge.grants.drop(key)
        return dict(before) != dict(applied.taken)

    def _refusal_changed(self, key: Key, refused: ApiError | None) -> bool:
        """Keep the server's words; the engine has to see them before anything is said when they are the first.

        Whether it refuses is news, its words are not: some carry the number of the request or the time.
        """
        known = self._knowledge.refused
        before = known.pop(key, None)
        if refused is not None:
            known[key] = refused.message
        return (before is None) != (refused is None)

    async def _tell(self, key: Key, uid: str, outcome: Outcome) -> None:
        resource = self._knowledge.store.resource(key)
        if resource is None or resource["metadata"]["uid"] != uid:
            # Gone, or made again under the same name meanwhile: what was found out is not about that one.
            return
        if outcome.status is not None:
            await self._tools.applier.apply_status(resource, outcome.status)
            self._tools.telemetry.show_replicas(key, outcome.status)
        for event in outcome.events:
            self._tools.recorder.record(resource, event)
        if outcome.reviewed:
            self._knowledge.reviews.discard(key)

    def _next_turn(self, key: Key, outcome: Outcome, applied: Applied) -> float | None:
        waits = []
        if outcome.requeue_after is not None:
            waits.append(outcome.requeue_after.total_seconds())
        if applied.waiting or self._ended.get(key):
            waits.append(_BLOCKED_RETRY_SECONDS)
        if key in self._knowledge.taken:
            waits.append(_TAKEN_RETRY_SECONDS)
        return min(waits, default=None)

    def _forget(self, key: Key) -> None:
        self._knowledge.forget(key)
        self._tools.applier.forget(key)
        self._tools.telemetry.forget(key)
        self._ended.pop(key, None)

    def _excuse(self, key: Key) -> None:
        """An object that the engine cannot handle must not keep younger ones waiting."""
        resource = self._knowledge.store.resource(key)
        if resource is not None and self._knowledge.verdicts.give(key, resource):
            self._wake_waiting(but=key)

    def _wake_waiting(self, but: Key) -> None:
        waiting = (
            key
            for key, resource in self._knowledge.resources()
            if key != but and self._knowledge.verdicts.is_waiting(key, resource)
        )
        for key in self._knowledge.by_age(waiting):
            self._tools.queue.add(key)

    def _fan(self, scopes: Iterable[Scope]) -> None:
        everybody = Scope.EVERYBODY in scopes
        for key in self._knowledge.by_age(self._knowledge.store.all_keys()):
            if everybody or self._knowledge.wants_room(key):
                self._tools.queue.add(key)

    def _suspect(self, pod: Mapping[str, Any]) -> None:
        """A pod of ours left the watch: it was deleted, or it has ended and the selector hides it now."""
        key = owner_key(POD, pod)
        if key is not None and self._knowledge.store.serves(key.namespace):
            metadata = pod["metadata"]
            ref = ObjectRef(POD.api_version, POD.kind, metadata["namespace"], metadata["name"])
            suspects = self._ended.setdefault(key, set())
            # A node that rejects server pods leaves them by the hundred; a few tell why.
            if not is_server_pod(pod) or len(suspects) < _MOST_SUSPECTS:
                suspects.add(ref)

    async def _look_at_ended(self, key: Key) -> None:
        """Ask the server about pods that no watch reports on."""
        suspects = self._ended.pop(key, set()) | set(self._knowledge.store.ended(key))
        try:
            while suspects:
                ref = min(suspects)
                await self._tools.applier.look(ref)
                suspects.remove(ref)
        finally:
            if suspects:
                self._ended.setdefault(key, set()).update(suspects)
