"""GPUs promised to LLMDeployments whose pods are not bound yet.

A grant is booked in the same step of the event loop as the decision that needs it, before anything is written, so two
workers can never promise the same devices. Once the Deployment is live, the live object speaks for itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stowage.feed.demand import Demand, LivePod, Waiting, waiting
from stowage.feed.job_demand import waiting_job
from stowage.kube.kinds import DEPLOYMENT, JOB, POD
from stowage.kube.store import Store
from stowage.world import Key, ObjectRef, Outcome


class Grants:
    """Demands by key: what was decided last, else what the live Deployment asks for."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._assumed: dict[Key, Demand] = {}
        self._known: dict[Key, tuple[tuple[int, Demand | None], Waiting | None]] = {}
        self._assumed_jobs: dict[Key, Mapping[str, Any]] = {}
        self._known_jobs: dict[Key, tuple[tuple[int, str], tuple[Waiting, ...]]] = {}

    def book(self, key: Key, outcome: Outcome) -> None:
        """Remember what an outcome is about to ask for; an outcome without a Deployment asks for nothing new."""
        wanted = [obj for obj in outcome.apply if obj["kind"] == DEPLOYMENT.kind]
        if wanted:
            self._assumed[key] = Demand.of_deployment(wanted[0])
        else:
            self._assumed.pop(key, None)
        jobs = [obj for obj in outcome.apply if obj["kind"] == JOB.kind]
        if jobs:
            self._assumed_jobs[key] = jobs[0]
        else:
            self._assumed_jobs.pop(key, None)

    def drop(self, key: Key) -> None:
        """The outcome could not be carried out, or the LLMDeployment is gone."""
        self._assumed.pop(key, None)
        self._known.pop(key, None)
        self._assumed_jobs.pop(key, None)
        self._known_jobs.pop(key, None)

    def waiting(self, but: Key) -> list[Waiting]:
        """What every other LLMDeployment still waits for, by key."""
        found = []
        for key in sorted({*self._assumed, *self._store.owners()} - {but}):
            item = self._waiting(key)
            if item is not None and item.pods:
                found.append(item)
        for key in sorted({*self._assumed_jobs, *self._store.owners()} - {but}):
            found += self._waiting_jobs(key)
        return found

    def _waiting_jobs(self, key: Key) -> tuple[Waiting, ...]:
        """Computed anew only when something of this key has changed, as everything here."""
        assumed = self._assumed_jobs.get(key)
        version = (self._store.key_version(key), assumed["metadata"]["name"] if assumed else "")
        known = self._known_jobs.get(key)
        if known is not None and known[0] == version:
            return known[1]
        children = self._store.children(key)
        jobs = {obj["metadata"]["name"]: obj for ref, obj in children.items() if ref.kind == JOB.kind}
        if assumed is not None:
            jobs.setdefault(assumed["metadata"]["name"], assumed)
        pods = [obj for ref, obj in children.items() if ref.kind == POD.kind]
        items = tuple(item for job in jobs.values() if (item := waiting_job(job, pods)) is not None)
        self._known_jobs[key] = (version, items)
        return items

    def _waiting(self, key: Key) -> Waiting | None:
        """Computed anew only when something of this key has changed: every World asks for all other keys."""
        version = (self._store.key_version(key), self._assumed.get(key))
        known = self._known.get(key)
        if known is not None and known[0] == version:
            return known[1]
        demand = self._demand(key)
        item = waiting(demand, self._live_pods(key)) if demand is not None else None
        self._known[key] = (version, item)
        return item

    def _live_pods(self, key: Key) -> list[LivePod]:
        return [LivePod(pod, usage) for pod, usage in self._store.server_usages(key)]

    def _demand(self, key: Key) -> Demand | None:
        if key in self._assumed:
            return self._assumed[key]
        live = self._store.get(ObjectRef(DEPLOYMENT.api_version, DEPLOYMENT.kind, key.namespace, key.name))
        if live is None or live["metadata"].get("deletionTimestamp"):
            return None
        return Demand.of_deployment(live)
