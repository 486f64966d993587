"""Work out the files of a volume that the API describes: ConfigMap, Secret, projected, downwardAPI. Pure.

A key that is asked for and missing raises `MissingReference`, as a kubelet would wait for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from e2e.localnode.environment import MissingReference, field_value


@dataclass(frozen=True, slots=True)
class VolumeFile:
    """One file of a volume, by its path in there."""

    path: str
    content: bytes
    mode: int


def keyed_files(
    source: Mapping[str, Any], data: Mapping[str, bytes] | None, default_mode: int, what: str
) -> list[VolumeFile]:
    """Return the files of a ConfigMap or Secret: all keys, or those that `items` chooses."""
    if data is None:
        if source.get("optional"):
            return []
        raise MissingReference(f"{what} not found")
    items = source.get("items") or [{"key": key, "path": key} for key in sorted(data)]
    files = []
    for item in items:
        if item["key"] in data:
            mode = item.get("mode")
            content = data[item["key"]]
            files.append(VolumeFile(_relative(item["path"]), content, default_mode if mode is None else mode))
        elif not source.get("optional"):
            raise MissingReference(f"{what}: references non-existent config key: {item['key']}")
    return files


def downward_files(
    items: Iterable[Mapping[str, Any]], pod: Mapping[str, Any], default_mode: int
) -> list[VolumeFile]:
    """Return the files of a downwardAPI source."""
    return [
        VolumeFile(
            _relative(item["path"]),
            field_value(pod, item["fieldRef"]["fieldPath"]).encode(),
            item.get("mode") or default_mode,
        )
        for item in items
    ]


def _relative(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"volume file path {path} leaves its volume")
    return path
