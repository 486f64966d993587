"""Which fields change hands, as sets of paths: the server's own form of them is tested against the server."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowage.kube.takeover import _cut, _merged, taken_over

Fields = dict[str, Any]

PORT_8000: Fields = {'k:{"port":8000}': {".": {}, "f:name": {}}}
PORT_9000: Fields = {'k:{"port":9000}': {".": {}, "f:name": {}}}
NAMED = ("spec.ports[1].name",)


def entry(
    fields: Fields, manager: str = "kubectl-edit", operation: str = "Update", **more: str
) -> dict[str, Any]:
    return {"manager": manager, "operation": operation, "apiVersion": "v1", "fieldsV1": fields, **more}


def own(fields: Fields) -> dict[str, Any]:
    return entry(fields, "stowage", "Apply")


def spec(**below: Fields) -> Fields:
    return {"f:spec": {f"f:{name}": fields for name, fields in below.items()}}


OWN = own(spec(type={}, ports=PORT_8000))


@pytest.mark.parametrize(
    ("before", "refused", "after"),
    [
        pytest.param(
            [entry(spec(ports=PORT_9000)), OWN],
            NAMED,
            [own(spec(type={}, ports={**PORT_8000, **PORT_9000}))],
            id="an entry of the named list, and who held nothing else is gone",
        ),
        pytest.param(
            [entry({**spec(ports=PORT_9000, externalIPs={}), "f:metadata": {"f:labels": {}}}), OWN],
            NAMED,
            [
                entry({**spec(externalIPs={}), "f:metadata": {"f:labels": {}}}),
                own(spec(type={}, ports={**PORT_8000, **PORT_9000})),
            ],
            id="what is not named stays where it is",
        ),
        pytest.param(
            [entry(spec(ports=PORT_9000), "gitops", "Apply"), OWN],
            NAMED,
            [own(spec(type={}, ports={**PORT_8000, **PORT_9000}))],
            id="another applier's",
        ),
        pytest.param(
            [entry(spec(ports=PORT_9000), "stowage"), OWN],
            NAMED,
            [own(spec(type={}, ports={**PORT_8000, **PORT_9000}))],
            id="what we ourselves have updated instead of applied",
        ),
        pytest.param(
            [entry(spec(minAvailable={})), own(spec(maxUnavailable={}))],
            ("spec",),
            [own(spec(maxUnavailable={}, minAvailable={}))],
            id="the other branch of a choice, named as a whole",
        ),
        pytest.param(
            [entry(spec(ports={})), OWN],
            NAMED,
            [own(spec(type={}, ports={**PORT_8000, ".": {}}))],
            id="the list itself besides its entries",
        ),
        pytest.param(
            [entry(spec(ports=PORT_9000))],
            NAMED,
            [{**own(spec(ports=PORT_9000)), "fieldsType": "FieldsV1"}],
            id="an object that we have not applied yet",
        ),
        pytest.param([OWN], NAMED, None, id="nobody else holds anything"),
        pytest.param([], NAMED, None, id="nobody holds anything"),
        pytest.param([entry(spec(type={})), OWN], NAMED, None, id="others hold something else"),
        pytest.param([entry(spec(ports=PORT_9000)), OWN], (), None, id="the refusal names no field"),
        pytest.param(
            [entry({"f:metadata": {"f:labels": {"f:a": {}}}}), OWN],
            ("metadata.labels",),
            None,
            id="labels of others stay theirs",
        ),
        pytest.param(
            [entry(spec(ports=PORT_9000), subresource="scale"), OWN],
            NAMED,
            None,
            id="what was written through a subresource stays",
        ),
        pytest.param(
            [{**entry(spec(ports=PORT_9000)), "apiVersion": "v2"}, OWN],
            NAMED,
            None,
            id="paths of another version may mean something else",
        ),
        pytest.param(
            [entry({"f:spec": {}}), OWN], NAMED, None, id="who holds the whole as one has filled in no part"
        ),
    ],
)
def test_take_over(
    before: list[dict[str, Any]], refused: tuple[str, ...], after: list[dict[str, Any]] | None
) -> None:
    assert taken_over(before, "v1", "stowage", refused) == after


Path = tuple[str, ...]
names = st.sampled_from(["f:a", "f:b", "f:c"])
sets = st.sets(st.lists(names, min_size=1, max_size=4).map(tuple), max_size=8)


def written(paths: set[Path]) -> Fields:
    """The set in the form of fieldsV1."""
    fields: Fields = {}
    for path in paths:
        below = {other[len(path) :] for other in paths if other[: len(path)] == path and other != path}
        node = fields
        for step in path:
            node = node.setdefault(step, {})
        if below:
            node["."] = {}
    return fields


def read(fields: Fields, stem: Path = ()) -> set[Path]:
    found: set[Path] = set()
    for name, below in fields.items():
        if name == ".":
            found.add(stem)
        else:
            found |= read(below, (*stem, name)) if below else {(*stem, name)}
    return found


@given(sets, sets)
def test_merging_is_the_union_of_the_sets(one: set[Path], other: set[Path]) -> None:
    assert read(_merged(written(one), written(other))) == one | other


@given(sets, st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(tuple))
def test_what_is_cut_and_what_is_left_are_the_set_again(paths: set[Path], cut: Path) -> None:
    stem = tuple(f"f:{step}" for step in cut)
    rest, piece = _cut(written(paths), cut)
    assert read(piece) == {path for path in paths if path[: len(stem)] == stem}
    assert read(dict(rest)) == {path for path in paths if path[: len(stem)] != stem}
