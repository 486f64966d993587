"""The names by which a quantisation block can mean a module, and the ways in which it writes patterns.

The engine compares its own module names, after it has mapped the block's names to them; a fused module is
compared part by part. Both spellings of each part are kept here, the engine's and the checkpoint's, and a
pattern means the part when it matches either.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from typing import Final

from stowage.model.quantization.settings import UnsupportedQuantization
from stowage.model.tensors import Linear

_WILD: Final = re.compile(r"[*?\[]")

Matcher = Callable[[str, str], bool]
"""Tells whether a pattern means a name."""


@dataclass(frozen=True)
class ModuleNames:
    """A linear module: the engine's name, the spellings of each of its parts, and its role."""

    module: str
    parts: tuple[tuple[str, ...], ...]
    role: str

    @property
    def all_names(self) -> tuple[str, ...]:
        """Every spelling of the module and its parts."""
        return (self.module, *(name for part in self.parts for name in part))


def module_names(linear: Linear, layer: int | None = None) -> ModuleNames:
    """Name the module of a layer; of experts that the checkpoint keeps apart, the first stands for all."""
    numbers = (layer, 0) if layer is not None else (0,)
    module = linear.module.format(*numbers)
    parts = tuple(_spellings(module, part.format(*numbers), linear.role) for part in linear.parts)
    return ModuleNames(module, parts, linear.role)


def _spellings(module: str, part: str, role: str) -> tuple[str, ...]:
    leaf = part.rpartition(".")[2]
    if role == "experts":
        apart = f"{module}.0.{leaf}"
        return tuple(dict.fromkeys((part, apart)))
    return tuple(dict.fromkeys((part, f"{module.rpartition('.')[0]}.{leaf}".lstrip("."))))


class Patterns:
    """A list of names or patterns of one notation; whole names are looked up, only the rest is tried."""

    def __init__(self, patterns: Iterable[str], matches: Matcher) -> None:
        listed = tuple(patterns)
        literal = matches in (equals, equals_or_regex)
        self._matches = matches
        self._names = frozenset(p for p in listed if literal and not p.startswith("re:"))
        self._others = tuple(p for p in listed if p not in self._names)

    def __bool__(self) -> bool:
        return bool(self._names or self._others)

    def _means(self, name: str) -> bool:
        return name in self._names or any(self._matches(pattern, name) for pattern in self._others)

    def list_module(self, module: ModuleNames) -> bool:
        """Tell whether the patterns mean the whole module; raises where they mean only some of its parts."""
        if self._means(module.module):
            return True
        found = [any(self._means(name) for name in part) for part in module.parts]
        if any(found) and not all(found):
            raise UnsupportedQuantization(
                f"Only some parts of {module.module} are quantised, which the engine refuses for a fused module."
            )
        return all(found)


class Wildcards(Patterns):
    """Patterns as ModelOpt writes them: text that a name contains, or shell wildcards.

    A star at the end adds nothing to contained text. Lists are long (some name every layer), so that what is
    left is one regular expression.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        listed = tuple(pattern[:-1] if pattern.endswith("*") else pattern for pattern in patterns)
        super().__init__((pattern for pattern in listed if not _WILD.search(pattern)), contained)
        wild = "|".join(translate(f"{pattern}*") for pattern in listed if _WILD.search(pattern))
        self._wild = re.compile(wild) if wild else None

    def _means(self, name: str) -> bool:
        if super()._means(name):
            return True
        return self._wild is not None and self._wild.match(name) is not None


def equals(pattern: str, name: str) -> bool:
    """Match a whole name."""
    return pattern == name


def contained(pattern: str, name: str) -> bool:
    """Match any part of a name's text."""
    return pattern in name


def equals_or_regex(pattern: str, name: str) -> bool:
    """Match a whole name, or the beginning of one by a regular expression behind `re:`."""
    if pattern.startswith("re:"):
        return compiled(pattern[3:]).match(name) is not None
    return pattern == name


def component_or_prefix(pattern: str, name: str) -> bool:
    """Match one component between dots, or the name's first components (bitsandbytes)."""
    return pattern in name.split(".") or name == pattern or name.startswith(f"{pattern}.")


@lru_cache(maxsize=4096)
def compiled(pattern: str) -> re.Pattern[str]:
    """Compile a pattern of a checkpoint; raises UnsupportedQuantization for one that is not understood."""
    try:
        return re.compile(pattern)
    except re.error as problem:
        raise UnsupportedQuantization(
            f"The quantisation block has a pattern that cannot be read: {pattern!r} ({problem})."
        ) from problem
