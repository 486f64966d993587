"""Carries out what the engine wants: server-side apply, prune, status, each only when it would change something.

Three rules are kept here and nowhere else. Nothing foreign is taken: before the first apply of a name the server is
asked who holds it. Nothing is written twice: an apply is skipped while neither the live object nor the intent has
changed since the last one. Nothing that is being deleted is written to. What should be there is not decided here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any

from stowage.kube.client import FIELD_MANAGER, KubeClient
from stowage.kube.errors import Conflict, Invalid, NotFound
from stowage.kube.facts import owner_key
from stowage.kube.kinds import kind_of
from stowage.kube.ownership import holder, is_left_behind, is_ours, names_owner
from stowage.kube.store import Change, Store
from stowage.kube.takeover import taken_over
from stowage.render.canonical import digest
from stowage.world import Key, ObjectRef

logger = logging.getLogger(__name__)


class Decision(Enum):
    """What to do about one intent."""

    SKIP = auto()
    WAIT = auto()
    VERIFY = auto()
    TAKEN = auto()
    APPLY = auto()


@dataclass(frozen=True, slots=True)
class Remembered:
    """The last apply of a name: the object it met or made, what that looked like, and the intent."""

    uid: str
    live_digest: str
    intent_digest: str


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a set of intents.

    `taken` names the foreign holders that were met: then nothing was applied. `waiting` are names whose object is
    still being deleted. `stale` is set when the cache turned out to be behind the server: the intents were made
    without knowing that, so the rest of them was not applied.
    """

    writes: int = 0
    skipped: int = 0
    taken: Mapping[ObjectRef, str] = field(default_factory=dict)
    waiting: tuple[ObjectRef, ...] = ()
    stale: bool = False
    change: Change = field(default_factory=Change)


def live_digest(live: Mapping[str, Any]) -> str:
    """Digest of all that an apply could change: a status update of the object leaves it as it is."""
    metadata = live["metadata"]
    writable = {
        name: metadata.get(name) for name in ("labels", "annotations", "ownerReferences", "finalizers")
    }
    rest = {name: value for name, value in live.items() if name not in ("metadata", "status")}
    return digest([writable, rest], 64)


def decide(
    intent_digest: str,
    live: Mapping[str, Any] | None,
    remembered: Remembered | None,
    key: Key,
    owner_uid: str,
) -> Decision:
    """The rule for one intent, given the cached object of its name and the last apply."""
    if live is None:
        return Decision.VERIFY
    metadata = live["metadata"]
    if metadata.get("deletionTimestamp"):
        return Decision.WAIT
    if not is_ours(live, key, owner_uid):
        return Decision.WAIT if is_left_behind(live, key.name, owner_uid) else Decision.TAKEN
    if remembered == Remembered(metadata["uid"], live_digest(live), intent_digest):
        return Decision.SKIP
    return Decision.APPLY


class Applier:
    """Writes through the client and puts every answer back into the store, so that the cache is never behind us."""

    def __init__(self, client: KubeClient, store: Store) -> None:
        self._client = client
        self._store = store
        self._remembered: dict[Key, dict[ObjectRef, Remembered]] = {}
        self._statuses: dict[Key, tuple[str, str]] = {}

    async def apply(self, key: Key, owner_uid: str, intents: Iterable[Mapping[str, Any]]) -> Applied:
        """Apply all intents in order, or none when a foreign object holds one of the names.

        Raises ApiError where the server refuses or cannot be reached.
        """
        todo: list[_Todo] = []
        taken: dict[ObjectRef, str] = {}
        so_far = Applied()
        for intent in intents:
            ref = ObjectRef.of(intent)
            decision, live, seen = await self._decide(ref, intent, key, owner_uid)
            so_far = _plus(so_far, ref, decision, seen)
            if decision is Decision.TAKEN and live is not None:
                taken[ref] = holder(live)
            elif decision is Decision.APPLY:
                todo.append(_Todo(intent, live))
        if taken or so_far.stale:
            return replace(so_far, taken=taken)
        return await self._write(key, owner_uid, todo, so_far)

    async def delete(self, key: Key, refs: Iterable[ObjectRef]) -> Applied:
        """Delete objects as the store knows them, by uid; what is gone or being deleted is left alone."""
        writes = 0
        changes: list[Change] = []
        for ref in refs:
            live = self._store.get(ref)
            if live is None or live["metadata"].get("deletionTimestamp"):
                continue
            try:
                answer = await self._client.delete(ref, live["metadata"]["uid"])
                writes += 1
                if answer.get("kind") == ref.kind:
                    changes.append(self._store.observe(kind_of(ref), answer))
            except NotFound:
                changes.append(self._store.drop(ref, live["metadata"]["uid"]))
            except Conflict:
                changes.append((await self._fetch(ref)).change)
            self._memory(key).pop(ref, None)
        return Applied(writes=writes, change=Change.merged(changes))

    async def apply_status(self, resource: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
        """Write the whole status unless it is there already; gives whether a request was sent.

        Raises ApiError; a resource that is gone meanwhile is no error.
        """
        metadata = resource["metadata"]
        key = Key(metadata["namespace"], metadata["name"])
        live, wanted = digest(resource.get("status") or {}), digest(status)
        if live == wanted or self._statuses.get(key) == (live, wanted):
            return False
        intent = {
            "apiVersion": resource["apiVersion"],
            "kind": resource["kind"],
            "metadata": {"name": key.name, "namespace": key.namespace, "uid": metadata["uid"]},
            "status": status,
        }
        try:
            answer = await self._client.apply_status(intent)
        except (NotFound, Conflict):
            return False
        self._statuses[key] = (digest(answer.get("status") or {}), wanted)
        self._store.observe(kind_of(resource), answer)
        return True

    async def look(self, ref: ObjectRef) -> Mapping[str, Any] | None:
        """The object as the server has it now; what is cached under the name is brought up to date."""
        return (await self._fetch(ref)).live

    def forget(self, key: Key) -> None:
        """Drop what is remembered about an LLMDeployment that is gone."""
        self._statuses.pop(key, None)
        self._remembered.pop(key, None)

    def _memory(self, key: Key) -> dict[ObjectRef, Remembered]:
        return self._remembered.setdefault(key, {})

    async def _fetch(self, ref: ObjectRef, key: Key | None = None, owner_uid: str = "") -> _Seen:
        """Ask the server; what belongs to `owner_uid` is kept under `key` even where its labels are gone."""
        kind = kind_of(ref)
        try:
            live = await self._client.get(ref)
        except NotFound:
            return _Seen(None, self._store.drop(ref))
        ours = key if key is not None and names_owner(live, owner_uid) else None
        if ours is None and owner_key(kind, live) is None:
            return _Seen(live, self._store.drop(ref))
        return _Seen(live, self._store.observe(kind, live, key=ours))

    async def _decide(
        self, ref: ObjectRef, intent: Mapping[str, Any], key: Key, owner_uid: str
    ) -> tuple[Decision, Mapping[str, Any] | None, _Seen | None]:
        wanted = digest(intent, 64)
        remembered = self._memory(key).get(ref)
        live = self._store.get(ref)
        decision = decide(wanted, live, remembered, key, owner_uid)
        if decision not in (Decision.VERIFY, Decision.TAKEN):
            return decision, live, None
        seen = await self._fetch(ref, key, owner_uid)
        if seen.live is None:
            return Decision.APPLY, None, seen
        decision = decide(wanted, seen.live, remembered, key, owner_uid)
        # The engine may have to decide otherwise once it sees the object: a record of the plan in force is in it.
        hidden = is_ours(seen.live, key, owner_uid) and self._store.get(ref) is not None
        return decision, seen.live, replace(seen, hidden=hidden)

    async def _write(self, key: Key, owner_uid: str, todo: list[_Todo], so_far: Applied) -> Applied:
        changes = [so_far.change]
        writes = 0
        for item in todo:
            ref = ObjectRef.of(item.intent)
            try:
                answer, sent = await self._apply(item, key, owner_uid)
            except (Conflict, NotFound):
                # Somebody deleted or replaced the object between our look and our write: look again, later.
                self._memory(key).pop(ref, None)
                changes.append((await self._fetch(ref, key, owner_uid)).change)
                return replace(so_far, writes=writes, stale=True, change=Change.merged(changes))
            writes += sent
            changes.append(self._store.observe(kind_of(item.intent), answer))
            self._memory(key)[ref] = Remembered(
                answer["metadata"]["uid"], live_digest(answer), digest(item.intent, 64)
            )
        return replace(so_far, writes=writes, change=Change.merged(changes))

    async def _apply(self, item: _Todo, key: Key, owner_uid: str) -> tuple[dict[str, Any], int]:
        """Apply one intent; gives the answer and the number of writes that it took."""
        wanted = _with_uid(item.intent, item.live)
        try:
            return await self._client.apply(wanted), 1
        except Invalid as refusal:
            if item.live is None or not await self._take_over(item.live, refusal, key, owner_uid):
                raise
        return await self._client.apply(wanted), 2

    async def _take_over(self, known: Mapping[str, Any], refusal: Invalid, key: Key, owner_uid: str) -> bool:
        """Take the refused fields of an object of ours from those who have edited it.

        Gives False when nobody else holds any: so one foreign edit costs one write here, whatever comes of it.
        """
        live = await self._client.get(ObjectRef.of(known))
        metadata = live["metadata"]
        same = metadata["uid"] == known["metadata"]["uid"] and not metadata.get("deletionTimestamp")
        if not same or not is_ours(live, key, owner_uid):
            return False
        entries = taken_over(
            metadata.get("managedFields") or (), live["apiVersion"], FIELD_MANAGER, refusal.fields
        )
        if entries is None:
            return False
        logger.info("Edited by hand so that an apply is refused, put back now: %s", refusal.message)
        await self._client.set_managed_fields(live, entries)
        return True


@dataclass(frozen=True, slots=True)
class _Todo:
    intent: Mapping[str, Any]
    live: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class _Seen:
    """An object as the server has it; `hidden` when it is ours and the cache had not shown it."""

    live: Mapping[str, Any] | None
    change: Change
    hidden: bool = False


def _plus(so_far: Applied, ref: ObjectRef, decision: Decision, seen: _Seen | None) -> Applied:
    """What is known after one more decision."""
    return replace(
        so_far,
        skipped=so_far.skipped + (decision is Decision.SKIP),
        waiting=(*so_far.waiting, ref) if decision is Decision.WAIT else so_far.waiting,
        stale=so_far.stale or (seen is not None and seen.hidden),
        change=Change.merged([so_far.change, seen.change]) if seen is not None else so_far.change,
    )


def _with_uid(intent: Mapping[str, Any], live: Mapping[str, Any] | None) -> dict[str, Any]:
    metadata = dict(intent["metadata"])
    if live is not None:
        metadata["uid"] = live["metadata"]["uid"]
    return {**intent, "metadata": metadata}
