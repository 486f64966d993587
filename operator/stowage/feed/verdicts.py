"""Which LLMDeployments have had their verdict, so that plans are granted in order of age.

An older LLMDeployment whose model is known and that has no verdict for its generation yet goes first. One that fails
with a bug is excused, or a single broken object would hold up the whole cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from stowage.world import Key

Resource = Mapping[str, Any]


class Verdicts:
    """Remembers per key the uid and generation that a verdict was given for."""

    def __init__(self) -> None:
        self._given: dict[Key, tuple[str, int]] = {}

    def give(self, key: Key, resource: Resource) -> bool:
        """Record a verdict; gives whether it is the first one for this generation."""
        version = _version(resource)
        news = self._given.get(key) != version
        self._given[key] = version
        return news

    def forget(self, key: Key) -> None:
        """The LLMDeployment is gone."""
        self._given.pop(key, None)

    def is_waiting(self, key: Key, resource: Resource) -> bool:
        """Whether the current generation still waits for a verdict."""
        deleting = bool(resource["metadata"].get("deletionTimestamp"))
        return not deleting and self._given.get(key) != _version(resource)

    def ahead(
        self,
        key: Key,
        resources: Iterable[tuple[Key, Resource]],
        has_model: Callable[[Key], bool],
    ) -> tuple[Key, ...]:
        """Those that are older than `key`, know their model and wait; the oldest first."""
        every = dict(resources)
        if key not in every:
            return ()
        mine = _age(key, every[key])
        older = sorted(
            (_age(other, resource), other)
            for other, resource in every.items()
            if self.is_waiting(other, resource) and has_model(other)
        )
        return tuple(other for age, other in older if age < mine)


def _version(resource: Resource) -> tuple[str, int]:
    metadata = resource["metadata"]
    return metadata.get("uid", ""), int(metadata.get("generation", 0))


def _age(key: Key, resource: Resource) -> tuple[str, Key]:
    return resource["metadata"].get("creationTimestamp", ""), key
