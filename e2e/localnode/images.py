"""The allow-list that maps a container image to a local command environment (`e2e/images.yaml`).

An image that it does not name cannot be "pulled". This is what keeps the local node from running whatever
somebody writes into the API server, and what says which images are a stand-in and which are the real engine.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ENGINES = ("none", "simulated", "real")
_PLACEHOLDER = re.compile(r"\$\{([A-Z_][A-Z0-9_]*)\}")
_KEYS = {"image", "engine", "path", "env", "mounts", "expose", "command", "args", "user"}


class ImageError(Exception):
    """The allow-list is not usable, or names a variable that has no value; the message says which entry."""


@dataclass(frozen=True, slots=True)
class LocalImage:
    """What an image stands for on this machine.

    `path` is prepended to PATH; `mounts` (container path → directory of this machine) are read-only; `engine`
    says whether it holds a model server and which; `user` is the uid that the real image declares (0 if it
    does not).
    """

    pattern: str
    engine: str = "none"
    path: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    mounts: Mapping[str, str] = field(default_factory=dict)
    expose: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    user: int = 0


class ImageCatalog:
    """The allow-list in the order of its file: the first pattern that matches an image counts."""

    def __init__(self, entries: list[dict[str, Any]], variables: Mapping[str, str]) -> None:
        self._entries = entries
        self._variables = dict(variables)
        for entry in entries:
            _check(entry)

    @classmethod
    def load(cls, file: Path, variables: Mapping[str, str]) -> ImageCatalog:
        """Read a YAML list of entries; raises `ImageError` for one with unknown or missing keys."""
        entries = yaml.safe_load(file.read_text())
        if not isinstance(entries, list):
            raise ImageError(f"{file}: expected a list of images")
        return cls(entries, variables)

    def find(self, image: str) -> LocalImage | None:
        """Return what `image` stands for, None if it is not on the list.

        Raises `ImageError` where the entry needs a variable that has no value.
        """
        for entry in self._entries:
            if fnmatch.fnmatchcase(image, entry["image"]):
                return self._resolved(entry)
        return None

    def engine(self, image: str) -> str:
        """Return what kind of engine an image is (see `ENGINES`); `none` if it is not on the list."""
        matching = (entry for entry in self._entries if fnmatch.fnmatchcase(image, entry["image"]))
        return str(next(matching, {}).get("engine", "none"))

    def _resolved(self, entry: dict[str, Any]) -> LocalImage:
        def text(value: object) -> str:
            return _PLACEHOLDER.sub(lambda match: self._value(match[1], entry["image"]), str(value))

        return LocalImage(
            pattern=entry["image"],
            engine=entry.get("engine", "none"),
            path=tuple(map(text, entry.get("path", []))),
            env={key: text(value) for key, value in (entry.get("env") or {}).items()},
            mounts={key: text(value) for key, value in (entry.get("mounts") or {}).items()},
            expose=tuple(map(text, entry.get("expose", []))),
            command=tuple(map(text, entry.get("command", []))),
            args=tuple(map(text, entry.get("args", []))),
            user=int(entry.get("user", 0)),
        )

    def _value(self, name: str, image: str) -> str:
        if not self._variables.get(name):
            raise ImageError(
                f"image {image} needs ${{{name}}}, which has no value: set {name} for the local node"
            )
        return self._variables[name]


def _check(entry: dict[str, Any]) -> None:
    if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
        raise ImageError(f"an entry has no image pattern: {entry!r}")
    unknown = sorted(set(entry) - _KEYS)
    if unknown:
        raise ImageError(
            f"image {entry['image']}: unknown key {unknown[0]}; known: {', '.join(sorted(_KEYS))}"
        )
    if entry.get("engine", "none") not in ENGINES:
        raise ImageError(f"image {entry['image']}: engine {entry['engine']!r}; one of {', '.join(ENGINES)}")
