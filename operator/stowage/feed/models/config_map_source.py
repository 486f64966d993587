"""A model described by a ConfigMap: what `stowage inspect` printed, or just a config.json.

The way for air-gapped clusters. The ConfigMap belongs to the user and is read by name, uncached, when it is needed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.kube.client import KubeClient
from stowage.kube.errors import NotFound
from stowage.kube.kinds import CONFIG_MAP
from stowage.world import ModelQuery, ObjectRef
from stowage_runtime.contract import CheckpointSummary, ContractError

SUMMARY_KEY = "checkpoint.json"
CONFIG_KEY = "config.json"


async def resolve_config_map(client: KubeClient, query: ModelQuery) -> CheckpointSummary | Refusal:
    """Read the ConfigMap that a query names; raises ApiError where the server cannot be reached."""
    name = query.config_map or ""
    ref = ObjectRef(CONFIG_MAP.api_version, CONFIG_MAP.kind, query.key.namespace, name)
    try:
        config_map = await client.get(ref)
    except NotFound:
        return Refusal(
            Reason.CONFIG_MAP_MISSING,
            f"spec.model.configRef.configMap is {name}; namespace {query.key.namespace} has no such ConfigMap.",
            "Create it with `stowage inspect SOURCE`, under the key checkpoint.json.",
        )
    return read_config_map(config_map.get("data") or {}, query)


def read_config_map(data: Mapping[str, str], query: ModelQuery) -> CheckpointSummary | Refusal:
    """The summary in `checkpoint.json`, else one made of `config.json` alone, without tensors."""
    if SUMMARY_KEY in data:
        try:
            return CheckpointSummary.from_json(data[SUMMARY_KEY])
        except ContractError as error:
            return _invalid(query, f"its {SUMMARY_KEY} is not what `stowage inspect` prints: {error}")
    if CONFIG_KEY not in data:
        return _invalid(query, f"it has neither {SUMMARY_KEY} nor {CONFIG_KEY}")
    try:
        config: Any = json.loads(data[CONFIG_KEY])
    except ValueError as error:
        return _invalid(query, f"its {CONFIG_KEY} is not JSON: {error}")
    if not isinstance(config, dict):
        return _invalid(query, f"its {CONFIG_KEY} is not a JSON object")
    return CheckpointSummary(
        source=query.source, config=config, tensors=(), total_bytes=0, files=0, revision=query.revision
    )


def _invalid(query: ModelQuery, problem: str) -> Refusal:
    return Refusal(
        Reason.INVALID_CONFIG_MAP,
        f"ConfigMap {query.config_map} (spec.model.configRef.configMap) cannot be used: {problem}.",
        "Write it again with `stowage inspect SOURCE`.",
    )
