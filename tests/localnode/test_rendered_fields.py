"""What the operator renders is understood by the local node, and whatever would be added to it is refused."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.localnode.fields import unsupported_field

GOLDEN = sorted((Path(__file__).parents[1] / "render" / "golden").glob("*.yaml"))
OPAQUE = ("nodeSelector", "tolerations", "requests", "limits", "seccompProfile", "imagePullSecrets")
"""The scheduler's and the API server's business, or listed as not enforced: any content is let through."""

Json = dict[str, Any]


def pod_spec(path: Path) -> Json:
    documents = yaml.safe_load_all(path.read_text())
    found: Json = next(item for item in documents if item["kind"] == "Deployment")["spec"]["template"]["spec"]
    return found


def objects(value: Any, path: str = "spec") -> Iterator[tuple[str, Json]]:
    """Every object within, with its path."""
    if isinstance(value, dict):
        yield path, value
        for key, below in value.items():
            if key not in OPAQUE:
                yield from objects(below, f"{path}.{key}")
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from objects(below, f"{path}[{index}]")


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_every_rendered_field_is_understood(path: Path) -> None:
    assert unsupported_field(pod_spec(path)) is None


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_field_added_anywhere_to_what_is_rendered_is_refused(path: Path) -> None:
    spec = pod_spec(path)
    places = [place for place, _ in objects(spec)]
    assert len(places) > 40
    for number, place in enumerate(places):
        changed = copy.deepcopy(spec)
        list(objects(changed))[number][1]["unheardOf"] = "x"
        assert unsupported_field(changed) == f"{place}.unheardOf"
