"""What the cache keeps of an object: all of what is ours, only the necessary of what is not.

A big cluster has tens of thousands of foreign pods and thousands of nodes of 6 kB each; of those only the room they
leave matters. `managedFields` are never kept: they are a third of an object and nothing reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stowage.hardware.inventory import pod_usage
from stowage.hardware.node import node_facts
from stowage.kube.kinds import LLM_DEPLOYMENT, NODE, POD, Kind
from stowage.render.names import MANAGED_BY_LABEL, MANAGER, NAME_LABEL, ROLE_LABEL, SERVER_ROLE
from stowage.world import Key


def owner_key(kind: Kind, obj: Mapping[str, Any]) -> Key | None:
    """The LLMDeployment that an object says to belong to; None for foreign objects."""
    metadata = obj["metadata"]
    if kind == LLM_DEPLOYMENT:
        return Key(metadata["namespace"], metadata["name"])
    labels = metadata.get("labels") or {}
    if labels.get(MANAGED_BY_LABEL) != MANAGER or NAME_LABEL not in labels:
        return None
    return Key(metadata.get("namespace", ""), labels[NAME_LABEL])


def is_server_pod(obj: Mapping[str, Any]) -> bool:
    """Whether a pod of ours serves (as opposed to an inspection pod)."""
    return (obj["metadata"].get("labels") or {}).get(ROLE_LABEL) == SERVER_ROLE


def has_ended(pod: Mapping[str, Any]) -> bool:
    """Whether a pod is over and will never answer again."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def job_has_ended(job: Mapping[str, Any]) -> bool:
    """Whether a Job is over, well or not."""
    conditions = (job.get("status") or {}).get("conditions") or ()
    return any(
        each.get("type") in ("Complete", "Failed") and each.get("status") == "True" for each in conditions
    )


def slim(obj: Mapping[str, Any]) -> dict[str, Any]:
    """The object without its managedFields."""
    metadata = {name: value for name, value in obj["metadata"].items() if name != "managedFields"}
    return {**obj, "metadata": metadata}


def room_facts(kind: Kind, obj: Mapping[str, Any]) -> Any:
    """What the inventory needs from a node or a pod; None for every other kind."""
    if kind == NODE:
        return node_facts(obj)
    if kind == POD:
        return pod_usage(obj)
    return None
