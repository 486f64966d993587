"""Whose an object is.

An object is ours when its controller is the very LLMDeployment (same uid), or when it is an orphan of one of the
same name: our label, no controller. Everything else stays untouched: what is foreign for good, and what an earlier
LLMDeployment of the same name has left behind, which the garbage collector is about to remove.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stowage.kube.kinds import LLM_DEPLOYMENT
from stowage.render.names import MANAGED_BY_LABEL, MANAGER, NAME_LABEL
from stowage.world import Key


def controller(obj: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The owner reference of the controlling owner."""
    owners = obj["metadata"].get("ownerReferences") or ()
    return next((owner for owner in owners if owner.get("controller")), None)


def names_owner(obj: Mapping[str, Any], uid: str) -> bool:
    """Whether the object says that the one with this uid owns it, whatever its labels are."""
    return any(owner.get("uid") == uid for owner in obj["metadata"].get("ownerReferences") or ())


def is_left_behind(obj: Mapping[str, Any], name: str, owner_uid: str) -> bool:
    """Whether the object is controlled by another LLMDeployment of that name, which therefore exists no more."""
    owner = controller(obj) or {}
    group = str(owner.get("apiVersion", "")).partition("/")[0]
    return (group, owner.get("kind"), owner.get("name")) == (
        LLM_DEPLOYMENT.group,
        LLM_DEPLOYMENT.kind,
        name,
    ) and (owner.get("uid") != owner_uid)


def is_ours(obj: Mapping[str, Any], key: Key, owner_uid: str) -> bool:
    """Whether the LLMDeployment with `owner_uid` may write to the object."""
    if names_owner(obj, owner_uid):
        return True
    labels = obj["metadata"].get("labels") or {}
    ours = labels.get(MANAGED_BY_LABEL) == MANAGER and labels.get(NAME_LABEL) == key.name
    return ours and not obj["metadata"].get("ownerReferences")


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
