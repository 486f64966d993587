"""Finds the pods of Jobs that have ended, which no watch reports on.

What an accuracy check has measured stands in its pod's termination message. The pod watch leaves out pods that have
ended, so after a restart of the operator, or where the end was missed, they are looked up by their Job's name.
"""

from __future__ import annotations

from stowage.kube.client import KubeClient, Selector
from stowage.kube.facts import job_has_ended
from stowage.kube.kinds import JOB, POD
from stowage.kube.store import Change, Store
from stowage.world import Key

_JOB_LABEL = "batch.kubernetes.io/job-name"


class JobPods:
    """Brings pods of ended Jobs into the store, once per Job."""

    def __init__(self, client: KubeClient, store: Store) -> None:
        self._client = client
        self._store = store
        self._looked: dict[Key, set[str]] = {}

    async def look(self, key: Key) -> Change:
        """Look up the pods of this key's Jobs that have ended since the last time; raises ApiError."""
        ended = {
            job["metadata"]["uid"]: job
            for ref, job in self._store.children(key).items()
            if ref.kind == JOB.kind and job_has_ended(job)
        }
        looked = self._looked.get(key, set())
        changes: list[Change] = []
        for uid in sorted(ended.keys() - looked):
            changes += await self._look_at(key, ended[uid]["metadata"]["name"])
            looked.add(uid)
        if ended:
            self._looked[key] = looked & ended.keys()
        else:
            self._looked.pop(key, None)
        return Change.merged(changes)

    async def _look_at(self, key: Key, name: str) -> list[Change]:
        selector = Selector(label=f"{_JOB_LABEL}={name}")
        return [
            self._store.observe(POD, pod)
            async for page in self._client.list_pages(POD, key.namespace, selector)
            for pod in page.items
        ]
