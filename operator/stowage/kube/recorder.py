"""Posts events about LLMDeployments: transitions only, never the same one twice within ten minutes.

At most one event a second is sent per object; what comes faster waits, and a long queue loses its newest. Events are
a courtesy to people: nothing depends on their arrival, and a failure to post one is counted and forgotten.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from stowage.kube.client import KubeClient
from stowage.kube.errors import ApiError
from stowage.world import EventIntent

logger = logging.getLogger(__name__)

REPORTING_CONTROLLER = "stowage.dev/stowage"
REPEAT_SECONDS = 600.0
INTERVAL_SECONDS = 1.0
_QUEUE_LENGTH = 20
_MEMORY = 10_000
_NOTE_BYTES = 1024


class Recorder:
    """Posts events in the background; `record` never waits."""

    def __init__(
        self, client: KubeClient, instance: str, *, on_drop: Callable[[], None] = lambda: None
    ) -> None:
        self._client = client
        self._instance = instance
        self._on_drop = on_drop
        self._posted: OrderedDict[tuple[str, EventIntent], float] = OrderedDict()
        self._queues: dict[str, deque[Mapping[str, Any]]] = {}
        self._due: dict[str, float] = {}
        self._wake = asyncio.Event()

    def record(self, resource: Mapping[str, Any], intent: EventIntent) -> bool:
        """Queue one event about `resource`; gives False for a repetition or when too many are waiting."""
        uid = resource["metadata"]["uid"]
        now = asyncio.get_running_loop().time()
        last = self._posted.get((uid, intent))
        if last is not None and now - last < REPEAT_SECONDS:
            return False
        queue = self._queues.setdefault(uid, deque())
        if len(queue) >= _QUEUE_LENGTH:
            self._on_drop()
            return False
        self._posted[uid, intent] = now
        self._posted.move_to_end((uid, intent))
        while len(self._posted) > _MEMORY:
            self._posted.popitem(last=False)
        queue.append(event_object(resource, intent, self._instance, datetime.now(UTC)))
        self._wake.set()
        return True

    async def run(self) -> None:
        """Post queued events until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            for uid in [uid for uid in self._queues if self._due.get(uid, 0.0) <= now]:
                queue = self._queues[uid]
                self._due[uid] = now + INTERVAL_SECONDS
                await self._post(queue.popleft())
                if not queue:
                    del self._queues[uid]
            self._due = {uid: due for uid, due in self._due.items() if due > loop.time()}
            await self._sleep(loop.time())

    async def _sleep(self, now: float) -> None:
        """Until the next event of some object may be sent."""
        self._wake.clear()
        waits = [self._due.get(uid, now) - now for uid in self._queues]
        try:
            await asyncio.wait_for(self._wake.wait(), max(0.01, min(waits)) if waits else None)
        except TimeoutError:
            return

    async def _post(self, event: Mapping[str, Any]) -> None:
        try:
            await self._client.create(event)
        except ApiError as error:
            self._on_drop()
            logger.warning("An event was not posted: %s", error)


def event_object(
    resource: Mapping[str, Any], intent: EventIntent, instance: str, now: datetime
) -> dict[str, Any]:
    """The events.k8s.io/v1 object for one intent; the note is cut to the 1024 bytes that the API allows."""
    metadata = resource["metadata"]
    moment = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    unique = hashlib.sha256(f"{metadata['uid']}{moment}{intent}".encode()).hexdigest()[:16]
    note = intent.note.encode()[:_NOTE_BYTES].decode("utf-8", "ignore")
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{metadata['name']}.{unique}", "namespace": metadata["namespace"]},
        "eventTime": moment,
        "type": intent.type,
        "reason": intent.reason,
        "action": intent.action,
        "note": note,
        "reportingController": REPORTING_CONTROLLER,
        "reportingInstance": instance[:128],
        "regarding": {
            "apiVersion": resource["apiVersion"],
            "kind": resource["kind"],
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
            "resourceVersion": metadata.get("resourceVersion", ""),
        },
    }
