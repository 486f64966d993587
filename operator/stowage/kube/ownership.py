"""Whose an object is.

An object is ours when its controller is the very LLMDeployment (same uid), or when it is an orphan of one of the
same name: our label, no controller. Everything else is foreign and stays untouched, an object of an earlier
LLMDeployment of the same name included: the garbage collector is about to remove it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stowage.render.names import MANAGED_BY_LABEL, MANAGER, NAME_LABEL
from stowage.world import Key


def controller(obj: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The owner reference of the controlling owner."""
    owners = obj["metadata"].get("ownerReferences") or ()
    return next((owner for owner in owners if owner.get("controller")), None)


def is_ours(obj: Mapping[str, Any], key: Key, owner_uid: str) -> bool:
    """Whether the LLMDeployment with `owner_uid` may write to the object."""
    owners = obj["metadata"].get("ownerReferences") or ()
    if any(owner.get("uid") == owner_uid for owner in owners):
        return True
    labels = obj["metadata"].get("labels") or {}
    ours = labels.get(MANAGED_BY_LABEL) == MANAGER and labels.get(NAME_LABEL) == key.name
    return ours and not owners


def holder(obj: Mapping[str, Any]) -> str:
    """Who holds a name, for people: `Service default/web, controlled by Deployment web`."""
    metadata = obj["metadata"]
    words = f"{obj['kind']} {metadata.get('namespace', '')}/{metadata['name']}"
    owner = controller(obj)
    if owner is not None:
        return f"{words}, controlled by {owner.get('kind')} {owner.get('name')}"
    manager = (metadata.get("labels") or {}).get(MANAGED_BY_LABEL)
    if manager:
        return f"{words}, managed by {manager}"
    return f"{words}, which Stowage did not make"
