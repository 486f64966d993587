"""Puts together the World of one key from everything that is known now.

Synchronous from start to end: what it returns is one consistent moment. The room that other LLMDeployments wait for is
taken off here, so the engine never sees a GPU that is promised to somebody else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from stowage.engine.start_up_record import calibration_of, start_ups_text
from stowage.feed.demand import Waiting, keep_places, keep_quota
from stowage.feed.grants import Grants
from stowage.feed.models.resolutions import Resolutions
from stowage.feed.verdicts import Verdicts
from stowage.hardware.inventory import Inventory, build_inventory, quota_room
from stowage.hardware.pools import Pool
from stowage.kube.kinds import DEPLOYMENT, Kind
from stowage.kube.store import Store
from stowage.memory.calibration import UNCALIBRATED, Calibration
from stowage.world import EngineOptions, Key, ObjectRef, PodReport, World


@dataclass(slots=True)
class Knowledge:
    """All that Worlds are made of.

    `taken` holds per key the names that foreign objects were found to hold, `refused` why the API server refused
    what was last applied. `reviews` are the keys for which it is time to see whether a new plan would be better.
    """

    store: Store
    grants: Grants
    verdicts: Verdicts
    resolutions: Resolutions
    reports: Callable[[Key], tuple[PodReport, ...]]
    options: EngineOptions
    taken: dict[Key, Mapping[ObjectRef, str]] = field(default_factory=dict)
    refused: dict[Key, str] = field(default_factory=dict)
    optional_kinds: frozenset[Kind] = frozenset()
    pools: tuple[Pool, ...] = ()
    reviews: set[Key] = field(default_factory=set)
    _learnt: tuple[tuple[str, ...], Calibration] = ((), UNCALIBRATED)
    _room: tuple[int, Inventory] | None = None
    _kept: tuple[Inventory, tuple[Waiting, ...], Inventory] | None = None

    def world(self, key: Key) -> World:
        """The World of one key, now."""
        return World(
            key=key,
            resource=self.store.resource(key),
            children=self.store.children(key),
            pods=self.store.server_pods(key),
            inventory=self.inventory(key),
            options=self.options,
            ahead=self.verdicts.ahead(key, self.resources(), self.resolutions.has_model),
            resolution=self.resolutions.get(key),
            reports=self.reports(key),
            installed_kinds=frozenset(str(kind) for kind in self.optional_kinds),
            taken=self.taken.get(key, {}),
            refused=self.refused.get(key),
            ended_pod=self.store.ended_server_pod(key),
            calibration=self.calibration(),
            review=key in self.reviews,
        )

    def inventory(self, key: Key) -> Inventory:
        """The room for one key: what is free, less what all others wait for, with its namespace's quotas."""
        others = tuple(self.grants.waiting(key))
        quotas = [quota_room(quota) for quota in self.store.quotas(key.namespace)]
        return replace(self._room_without(others), quotas=keep_quota(quotas, others))

    def calibration(self) -> Calibration:
        """What all start-ups that are written down teach; worked out anew only when one of them is news."""
        every = (self.store.get(_deployment_ref(key)) for key in self.store.owners())
        found = [text for live in every if live is not None and (text := start_ups_text(live))]
        texts = tuple(found)
        if texts != self._learnt[0]:
            self._learnt = (texts, calibration_of(texts))
        return self._learnt[1]

    def resources(self) -> Iterator[tuple[Key, Mapping[str, Any]]]:
        """Every LLMDeployment that exists."""
        for key in self.store.all_keys():
            resource = self.store.resource(key)
            if resource is not None:
                yield key, resource

    def by_age(self, keys: Iterable[Key]) -> list[Key]:
        """Keys in the order in which plans are granted; what has no LLMDeployment any more comes first."""
        return sorted(keys, key=self._age)

    def wants_room(self, key: Key) -> bool:
        """Whether a change of the room in the cluster may matter: not ready, or not as many replicas as asked."""
        resource = self.store.resource(key)
        if resource is None:
            return False
        status = resource.get("status") or {}
        ready = any(
            condition.get("type") == "Ready" and condition.get("status") == "True"
            for condition in status.get("conditions") or ()
        )
        current = status.get("observedGeneration") == resource["metadata"].get("generation")
        enough = status.get("readyReplicas", 0) >= (resource.get("spec") or {}).get("replicas", 1)
        return not (ready and current and enough)

    def forget(self, key: Key) -> None:
        """The LLMDeployment is gone."""
        self.grants.drop(key)
        self.verdicts.forget(key)
        self.resolutions.forget(key)
        self.taken.pop(key, None)
        self.refused.pop(key, None)
        self.reviews.discard(key)

    def _age(self, key: Key) -> tuple[str, Key]:
        resource = self.store.resource(key) or {}
        return (resource.get("metadata") or {}).get("creationTimestamp", ""), key

    def _room_without(self, everybody: tuple[Waiting, ...]) -> Inventory:
        """Most keys wait for nothing, so the last answer is often the next one too."""
        room = self._all_room()
        if self._kept is None or self._kept[0] is not room or self._kept[1] != everybody:
            self._kept = (room, everybody, keep_places(room, everybody))
        return self._kept[2]

    def _all_room(self) -> Inventory:
        version = self.store.room_version
        if self._room is None or self._room[0] != version:
            inventory = build_inventory(self.store.nodes(), self.store.bound_usages(), pools=self.pools)
            self._room = (version, inventory)
        return self._room[1]


def _deployment_ref(key: Key) -> ObjectRef:
    return ObjectRef(DEPLOYMENT.api_version, DEPLOYMENT.kind, key.namespace, key.name)
