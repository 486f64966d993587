"""Reads Kubernetes objects from YAML or JSON files, lists opened up, `-` for standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from stowage.commands.bad_input import bad_input

# The C parser is some twenty times faster; a cluster's nodes are megabytes of YAML.
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

POOLS: Final = "pools"
"""The key under which node pools are declared, in a document of its own or beside the items of a list."""


def read_objects(path: str) -> tuple[dict[str, Any], ...]:
    """Read all objects of a file; ends the command with a sentence where it cannot be read."""
    found: list[dict[str, Any]] = []
    for document in _documents(path):
        found += _objects(document, path)
    return tuple(found)


def read_document(path: str) -> Any:
    """Read the one document of a file, of whatever form; ends the command where there is not exactly one."""
    found = [document for document in _documents(path) if document is not None]
    if len(found) != 1:
        bad_input(f"{path} holds {len(found) or 'no'} documents; it has to hold one.")
    return found[0]


def _documents(path: str) -> list[Any]:
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except OSError as error:
        bad_input(
            f"{path} cannot be read ({error.strerror}); name an existing file, or - for standard input."
        )
    except UnicodeDecodeError:
        bad_input(f"{path} is not UTF-8 text; name a YAML or JSON file.")
    try:
        return list(yaml.load_all(text, Loader=_LOADER))
    except yaml.YAMLError as error:
        bad_input(f"{path} is not valid YAML: {_first_line(error)}; correct it.")


def _objects(document: Any, path: str) -> Iterator[dict[str, Any]]:
    if document is None:
        return
    if isinstance(document, dict) and POOLS in document:
        # Not an object of Kubernetes: what a person adds to the nodes that kubectl wrote.
        yield {"kind": POOLS, POOLS: document[POOLS]}
        document = {key: value for key, value in document.items() if key != POOLS}
        if not document:
            return
    if not isinstance(document, dict) or not isinstance(document.get("kind"), str):
        bad_input(f"{path} holds something that is not a Kubernetes object with a kind; remove it.")
    if document["kind"].endswith("List") and isinstance(document.get("items"), list):
        kind = document["kind"].removesuffix("List")
        for item in document["items"]:
            # The items of a typed list (NodeList) carry no kind of their own on the wire.
            yield from _objects({"kind": kind, **item} if isinstance(item, dict) and kind else item, path)
        return
    yield document


def _first_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{problem} in line {mark.line + 1}" if mark is not None else str(problem)
