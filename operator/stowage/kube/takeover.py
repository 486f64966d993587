"""Who holds a field of an object, rewritten, so that the next apply may remove what somebody else has filled in.

A server-side apply only ever removes fields that nobody but its own manager holds. Where an edit by hand added an
entry to a list that is keyed by the edited field, or another branch of a choice, our apply and that edit add up to an
object that is refused as invalid, for ever. Taking over the foreign fields changes no value: it makes the next apply,
which lacks them, remove them in the same step that puts ours back. What the refusal does not name is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_Fields = Mapping[str, Any]
_Path = tuple[str, ...]

_NOT_CONTENT = ("metadata", "status")
_SELF = "."


def taken_over(
    managed_fields: Sequence[Mapping[str, Any]], api_version: str, manager: str, refused: Iterable[str]
) -> list[dict[str, Any]] | None:
    """The entries with all that others hold below the `refused` fields as the own of the applying `manager`.

    `refused` are paths as a refusal names them (`spec.ports[1].name`): each is meant with the whole list that it leads
    through. None when others hold nothing there: then the refusal has another cause.
    """
    own: dict[str, Any] | None = None
    others: list[dict[str, Any]] = []
    gained: dict[str, Any] = {}
    paths = _paths(refused)
    for entry in managed_fields:
        if entry.get("subresource") or entry.get("apiVersion") != api_version:
            others.append(dict(entry))
        elif (entry.get("manager"), entry.get("operation")) == (manager, "Apply"):
            own = dict(entry)
        else:
            kept, taken = _divided(entry.get("fieldsV1") or {}, paths)
            gained = _merged(gained, taken)
            if kept:
                others.append({**entry, "fieldsV1": kept})
    if not gained:
        return None
    if own is None:
        own = {"manager": manager, "operation": "Apply", "apiVersion": api_version, "fieldsType": "FieldsV1"}
    return [*others, {**own, "fieldsV1": _merged(own.get("fieldsV1") or {}, gained)}]


def _paths(refused: Iterable[str]) -> list[_Path]:
    """Up to the first list: an index there counts entries of an object that never came to be."""
    paths = {tuple(field.partition("[")[0].split(".")) for field in refused}
    return sorted(path for path in paths if path[0] not in _NOT_CONTENT)


def _divided(fields: _Fields, paths: Iterable[_Path]) -> tuple[_Fields, dict[str, Any]]:
    """What lies outside and what lies below the paths."""
    taken: dict[str, Any] = {}
    for path in paths:
        fields, piece = _cut(fields, path)
        taken = _merged(taken, piece)
    return fields, taken


def _cut(fields: _Fields, path: _Path) -> tuple[_Fields, dict[str, Any]]:
    """Take one branch off; it comes with its stem."""
    step = f"f:{path[0]}"
    if step not in fields:
        return fields, {}
    rest = {name: below for name, below in fields.items() if name != step}
    if len(path) == 1:
        return rest, {step: fields[step]}
    kept, piece = _cut(fields[step], path[1:])
    if not piece:
        return fields, {}
    return ({**rest, step: kept} if kept else rest), {step: piece}


def _merged(one: _Fields, other: _Fields) -> dict[str, Any]:
    """Both sets; a node without children stands for itself, one with children only where it has the entry `.`."""
    merged = dict(one)
    for name, below in other.items():
        merged[name] = _merged_node(merged[name], below) if name in merged else below
    return merged


def _merged_node(one: _Fields, other: _Fields) -> _Fields:
    if one and other:
        return _merged(one, other)
    below = one or other
    return {**below, _SELF: {}} if below else below
