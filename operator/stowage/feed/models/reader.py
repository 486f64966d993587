"""Reads a model in the way that a question asks for: at the Hub, from a ConfigMap, or through a pod.

Only the Hub is asked by the operator itself, and without any token: whatever needs one is read by a pod in the
namespace that owns the Secret.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from stowage.api.refusal import Refusal
from stowage.feed.agent_http import AgentHttp
from stowage.feed.models.config_map_source import resolve_config_map
from stowage.feed.models.inspection import inspect_by_pod
from stowage.kube.client import KubeClient
from stowage.kube.errors import Conflict, NotFound
from stowage.kube.facts import has_ended
from stowage.kube.kinds import POD
from stowage.kube.store import Change, Store
from stowage.world import ModelQuery, ObjectRef
from stowage_runtime.contract import CheckpointSummary

HubReader = Callable[[str, str | None, str | None], Awaitable[CheckpointSummary | Refusal]]


class ModelReader:
    """Callable that answers one question; raises ApiError where the API server is needed and does not answer.

    `on_change` hears about an ended pod that was removed to make room for another try.
    """

    def __init__(
        self,
        client: KubeClient,
        store: Store,
        http: AgentHttp,
        hub: HubReader,
        on_change: Callable[[Change], None],
    ) -> None:
        self._client = client
        self._store = store
        self._http = http
        self._hub = hub
        self._on_change = on_change

    async def __call__(self, query: ModelQuery) -> CheckpointSummary | Refusal:
        """Read the model of `query`."""
        if query.config_map is not None:
            return await resolve_config_map(self._client, query)
        if query.inspection_pod is None:
            return await self._hub(query.source, query.revision, None)
        await self._remove_ended_pod(query)
        return await inspect_by_pod(self._http, query, self._read_pod)

    def _read_pod(self, query: ModelQuery) -> Mapping[str, Any] | None:
        return self._store.get(_pod_ref(query))

    async def _remove_ended_pod(self, query: ModelQuery) -> None:
        """A new try needs a new pod: the one of the last try is removed, and the engine asks for another."""
        pod = self._read_pod(query)
        if pod is None or not has_ended(pod):
            return
        with contextlib.suppress(NotFound, Conflict):
            await self._client.delete(_pod_ref(query), pod["metadata"]["uid"])
        self._on_change(self._store.drop(_pod_ref(query), pod["metadata"]["uid"]))


def _pod_ref(query: ModelQuery) -> ObjectRef:
    return ObjectRef(POD.api_version, POD.kind, query.key.namespace, query.inspection_pod or "")
