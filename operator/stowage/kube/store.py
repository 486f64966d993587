"""The operator's picture of the cluster: a cache of objects, indexed by the LLMDeployment they belong to.

Fed by watches, by LISTs and by the answers to our own writes; an older version never replaces a newer one, and a
LIST removes what the watches failed to report as deleted. It decides nothing and does no IO: it says which keys a
change concerns and whether the room in the cluster changed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from stowage.hardware.inventory import PodUsage
from stowage.hardware.node import NodeFacts
from stowage.kube.facts import has_ended, is_server_pod, owner_key, room_facts, slim
from stowage.kube.kinds import (
    DEPLOYMENT,
    LLM_DEPLOYMENT,
    NODE,
    POD,
    REPLICA_SET,
    RESOURCE_QUOTA,
    Kind,
    kind_named,
)
from stowage.kube.ownership import controller, is_left_behind
from stowage.kube.versions import is_newer
from stowage.world import Key, ObjectRef

_TOMBSTONES = 10_000
_MAKERS = (REPLICA_SET.kind, DEPLOYMENT.kind)

_Name = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Change:
    """What an observation changed: `keys` to look at, and whether nodes, pods' requests or quotas moved.

    `nodes` and `usage` say which half of the inventory moved; `ghosts` counts objects that only a LIST showed to be
    gone; `updates` are the uids that a LIST brought and the watch had not (yet).
    """

    keys: frozenset[Key] = frozenset()
    nodes: bool = False
    usage: bool = False
    quota_namespaces: frozenset[str] = frozenset()
    ghosts: int = 0
    updates: tuple[tuple[str, str], ...] = ()

    @classmethod
    def merged(cls, changes: Iterable[Change]) -> Change:
        """Many changes as one."""
        every = list(changes)
        return cls(
            frozenset().union(*(change.keys for change in every)),
            any(change.nodes for change in every),
            any(change.usage for change in every),
            frozenset().union(*(change.quota_namespaces for change in every)),
            sum(change.ghosts for change in every),
            tuple(update for change in every for update in change.updates),
        )


@dataclass(slots=True)
class _Entry:
    uid: str
    version: str
    key: Key | None
    raw: Mapping[str, Any] | None
    facts: Any
    watched: bool = True


@dataclass(slots=True)
class Store:
    """Objects by kind and name; read methods give live views that callers must not change.

    `served` names the namespaces whose LLMDeployments are served, empty for all: what lies elsewhere is foreign.
    """

    served: frozenset[str] = frozenset()
    _entries: dict[Kind, dict[_Name, _Entry]] = field(default_factory=dict)
    _owned: dict[Key, dict[ObjectRef, Mapping[str, Any]]] = field(default_factory=dict)
    _tombstones: OrderedDict[str, str] = field(default_factory=OrderedDict)
    _key_versions: dict[Key, int] = field(default_factory=dict)
    _room_version: int = 0

    @property
    def room_version(self) -> int:
        """Changes with every change of a node's facts or of a pod's requests or place."""
        return self._room_version

    def serves(self, namespace: str) -> bool:
        """Whether LLMDeployments of the namespace are served."""
        return not self.served or namespace in self.served

    def observe(
        self, kind: Kind, obj: Mapping[str, Any], *, deleted: bool = False, key: Key | None = None
    ) -> Change:
        """Take in an object from a watch, a LIST or the answer to a write; older versions are ignored.

        `key` is whom the object belongs to where its labels do not say so.
        """
        metadata = obj["metadata"]
        name = (metadata.get("namespace", ""), metadata["name"])
        entry = self._entries.setdefault(kind, {}).get(name)
        version = metadata.get("resourceVersion", "")
        if deleted:
            return self._observe_deleted(kind, name, metadata.get("uid", ""), version)
        buried = self._tombstones.get(metadata.get("uid", ""))
        if buried is not None and is_newer(buried, version):
            return Change()
        if entry is not None and not is_newer(version, entry.version):
            return Change()
        return self._put(kind, name, obj, key)

    def drop(self, ref: ObjectRef, uid: str | None = None) -> Change:
        """Forget an object that an uncached GET did not find; with `uid` only that very one."""
        kind = kind_named(ref.api_version, ref.kind)
        name = (ref.namespace, ref.name)
        entry = self._entries.get(kind, {}).get(name)
        if entry is None or (uid is not None and entry.uid != uid):
            return Change()
        return self._remove(kind, name)

    def forget(self, kind: Kind) -> Change:
        """Forget every object of a kind that the server does not have any more."""
        return Change.merged([self._remove(kind, name) for name in list(self._entries.get(kind, {}))])

    def replace(
        self, kind: Kind, items: Iterable[Mapping[str, Any]], version: str, namespace: str | None
    ) -> Change:
        """Take in a whole LIST made at `version` and remove what it lacks, unless it came later."""
        changes: list[Change] = []
        listed: set[_Name] = set()
        for obj in items:
            metadata = obj["metadata"]
            listed.add((metadata.get("namespace", ""), metadata["name"]))
            before = self._version_of(kind, obj)
            changes.append(self.observe(kind, obj))
            if before != metadata["resourceVersion"] == self._version_of(kind, obj):
                changes.append(Change(updates=((metadata["uid"], metadata["resourceVersion"]),)))
        for name in self._absent(kind, listed, version, namespace):
            changes += [self._remove(kind, name), Change(ghosts=1)]
        return Change.merged(changes)

    def resource(self, key: Key) -> Mapping[str, Any] | None:
        """The LLMDeployment itself."""
        entry = self._entries.get(LLM_DEPLOYMENT, {}).get((key.namespace, key.name))
        return entry.raw if entry else None

    def all_keys(self) -> tuple[Key, ...]:
        """All LLMDeployments."""
        return tuple(Key(namespace, name) for namespace, name in self._entries.get(LLM_DEPLOYMENT, {}))

    def get(self, ref: ObjectRef) -> Mapping[str, Any] | None:
        """One object that is kept whole, by reference."""
        entry = self._entries.get(kind_named(ref.api_version, ref.kind), {}).get((ref.namespace, ref.name))
        return entry.raw if entry else None

    def children(self, key: Key) -> dict[ObjectRef, Mapping[str, Any]]:
        """Everything that carries our labels for this key, except its server pods."""
        owned = self._owned.get(key, {})
        return {ref: obj for ref, obj in owned.items() if ref.kind != POD.kind or not is_server_pod(obj)}

    def server_pods(self, key: Key) -> tuple[Mapping[str, Any], ...]:
        """The server pods of this key that live, whole, by name; without those that an earlier object left."""
        owned = self._owned.get(key, {})
        pods = [
            obj
            for ref, obj in sorted(owned.items())
            if ref.kind == POD.kind and is_server_pod(obj) and not has_ended(obj)
        ]
        resource = self.resource(key)
        if not pods or resource is None:
            return tuple(pods)
        makers = {obj["metadata"]["uid"]: obj for ref, obj in owned.items() if ref.kind in _MAKERS}
        uid = resource["metadata"]["uid"]
        return tuple(pod for pod in pods if not _is_left_behind(pod, makers, key, uid))

    def ended_server_pod(self, key: Key) -> Mapping[str, Any] | None:
        """The newest server pod of this key that has ended and still exists: rejected by its node, or evicted."""
        pods = (obj for ref, obj in self._owned.get(key, {}).items() if ref.kind == POD.kind)
        return next((pod for pod in pods if is_server_pod(pod) and has_ended(pod)), None)

    def all_server_pods(self) -> Iterator[tuple[Key, Mapping[str, Any]]]:
        """Every server pod with its key."""
        return ((key, pod) for key in self.owners() for pod in self.server_pods(key))

    def server_usages(self, key: Key) -> list[tuple[Mapping[str, Any], PodUsage]]:
        """The server pods of this key with what each holds or asks for."""
        owned = self._owned.get(key, {}).items()
        return [
            (obj, self._entry_of(ref).facts)
            for ref, obj in owned
            if ref.kind == POD.kind and is_server_pod(obj)
        ]

    def key_version(self, key: Key) -> int:
        """Changes with every change of an object that belongs to the key."""
        return self._key_versions.get(key, 0)

    def owners(self) -> tuple[Key, ...]:
        """All keys that some object of ours belongs to, whether the LLMDeployment still exists or not."""
        return tuple(self._owned)

    def ended(self, key: Key) -> tuple[ObjectRef, ...]:
        """Objects of this key that no watch reports on any more."""
        return tuple(ref for ref in self._owned.get(key, {}) if not self._entry_of(ref).watched)

    def nodes(self) -> Iterator[NodeFacts]:
        """The facts of every node."""
        return (entry.facts for entry in self._entries.get(NODE, {}).values())

    def bound_usages(self) -> Iterator[PodUsage]:
        """What every pod that has a node holds there, foreign ones included."""
        entries = (entry for entry in self._entries.get(POD, {}).values() if entry.watched)
        return (entry.facts for entry in entries if entry.facts.node_name is not None)

    def quotas(self, namespace: str) -> tuple[Mapping[str, Any], ...]:
        """The ResourceQuotas of a namespace, raw, by name."""
        entries = sorted(self._entries.get(RESOURCE_QUOTA, {}).items(), key=lambda item: item[0])
        return tuple(entry.raw for (place, _), entry in entries if place == namespace and entry.raw)

    def counts(self) -> dict[str, int]:
        """Number of cached objects by kind."""
        return {kind.kind: len(entries) for kind, entries in self._entries.items()}

    def _entry_of(self, ref: ObjectRef) -> _Entry:
        return self._entries[kind_named(ref.api_version, ref.kind)][ref.namespace, ref.name]

    def _version_of(self, kind: Kind, obj: Mapping[str, Any]) -> str | None:
        metadata = obj["metadata"]
        entry = self._entries.get(kind, {}).get((metadata.get("namespace", ""), metadata["name"]))
        return entry.version if entry else None

    def _absent(self, kind: Kind, listed: set[_Name], version: str, namespace: str | None) -> list[_Name]:
        return [
            name
            for name, entry in self._entries.get(kind, {}).items()
            if name not in listed
            and entry.watched
            and (namespace is None or name[0] == namespace)
            and not is_newer(entry.version, version)
        ]

    def _observe_deleted(self, kind: Kind, name: _Name, uid: str, version: str) -> Change:
        entry = self._entries[kind].get(name)
        self._tombstones[uid] = version
        while len(self._tombstones) > _TOMBSTONES:
            self._tombstones.popitem(last=False)
        if entry is None or (entry.uid != uid and is_newer(entry.version, version)):
            return Change()
        return self._remove(kind, name)

    def _put(self, kind: Kind, name: _Name, obj: Mapping[str, Any], key: Key | None) -> Change:
        metadata = obj["metadata"]
        before = self._entries.setdefault(kind, {}).get(name)
        if key is None and self.serves(name[0]):
            key = owner_key(kind, obj)
        facts = room_facts(kind, obj)
        raw = slim(obj) if key is not None or kind == RESOURCE_QUOTA else None
        # The selector of the pod watch leaves out pods that have ended; LISTs must not prune them.
        watched = kind != POD or not has_ended(obj)
        entry = _Entry(metadata.get("uid", ""), metadata.get("resourceVersion", ""), key, raw, facts, watched)
        self._entries[kind][name] = entry
        if before is not None and before.key is not None and before.key != key:
            self._disown(before.key, kind, name)
        if key is not None and not watched and is_server_pod(obj):
            self._forget_older_end(key, obj)
        if key is not None and raw is not None and kind != LLM_DEPLOYMENT:
            self._owned.setdefault(key, {})[_ref(kind, name)] = raw
        return self._change(kind, name, before, entry)

    def _forget_older_end(self, key: Key, pod: Mapping[str, Any]) -> None:
        """Keep one ended server pod for each key: a node that rejects pods leaves hundreds, which no watch reports."""
        before = self.ended_server_pod(key)
        if before is not None and before["metadata"]["uid"] != pod["metadata"].get("uid"):
            self._remove(POD, (before["metadata"]["namespace"], before["metadata"]["name"]))

    def _remove(self, kind: Kind, name: _Name) -> Change:
        before = self._entries[kind].pop(name)
        if before.key is not None:
            self._disown(before.key, kind, name)
        return self._change(kind, name, before, None)

    def _disown(self, key: Key, kind: Kind, name: _Name) -> None:
        owned = self._owned.get(key, {})
        owned.pop(_ref(kind, name), None)
        if not owned:
            self._owned.pop(key, None)

    def _change(self, kind: Kind, name: _Name, before: _Entry | None, after: _Entry | None) -> Change:
        entries = [entry for entry in (before, after) if entry is not None]
        keys = frozenset(entry.key for entry in entries if entry.key is not None)
        for key in keys:
            self._key_versions[key] = self._key_versions.get(key, 0) + 1
        moved = _room(before) != _room(after)
        if moved:
            self._room_version += 1
        return Change(
            keys,
            nodes=kind == NODE and moved,
            usage=kind == POD and moved,
            quota_namespaces=frozenset({name[0]}) if kind == RESOURCE_QUOTA else frozenset(),
        )


def _is_left_behind(
    pod: Mapping[str, Any], makers: Mapping[str, Mapping[str, Any]], key: Key, owner_uid: str
) -> bool:
    """Follow a pod over its ReplicaSet to its Deployment; where one of them is not known, nothing is said."""
    found: Mapping[str, Any] | None = pod
    for _ in _MAKERS:
        found = makers.get((controller(found) or {}).get("uid", "")) if found else None
    return found is not None and is_left_behind(found, key.name, owner_uid)


def _room(entry: _Entry | None) -> Any:
    return entry.facts if entry is not None and entry.watched else None


def _ref(kind: Kind, name: _Name) -> ObjectRef:
    return ObjectRef(kind.api_version, kind.kind, name[0], name[1])
