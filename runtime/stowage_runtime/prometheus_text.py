"""A reader for the Prometheus text format, as far as the agent needs it: names, labels, values.

vLLM's endpoint also prints help, types, exemplars and many families that nobody here asks for; a line that
cannot be read is skipped, since a report with one figure less is better than none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_LINE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?\s*(?:#.*)?")
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"\s*,?')
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": "\n", '"': '"', "\\": "\\"}


@dataclass(frozen=True)
class Sample:
    """One line of the exposition."""

    name: str
    labels: Mapping[str, str]
    value: float


class Exposition:
    """The samples of one scrape, by name."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._by_name: dict[str, list[Sample]] = {}
        for sample in samples:
            self._by_name.setdefault(sample.name, []).append(sample)

    def samples(self, *names: str) -> list[Sample]:
        """Return the samples of the first of these names that is there; names are newest first."""
        for name in names:
            if name in self._by_name:
                return self._by_name[name]
        return []

    def total(self, *names: str) -> float | None:
        """Return the sum over all label values of the first name that is there, or None."""
        values = [sample.value for sample in self.samples(*names) if math.isfinite(sample.value)]
        return math.fsum(values) if values else None

    def mean(self, *names: str) -> float | None:
        """Return the mean over all label values of the first name that is there, or None."""
        values = [sample.value for sample in self.samples(*names) if math.isfinite(sample.value)]
        return math.fsum(values) / len(values) if values else None


def parse_exposition(text: str) -> Exposition:
    """Read a whole exposition; lines that are not samples are skipped."""
    return Exposition(sample for line in text.split("\n") if (sample := _sample(line)) is not None)


def _sample(line: str) -> Sample | None:
    if not line or line[0] == "#":
        return None
    found = _LINE.fullmatch(line)
    if found is None:
        return None
    name, labels, value = found.groups()
    try:
        number = float(value)
    except ValueError:
        return None
    return Sample(name, _labels(labels or ""), number)


def _labels(text: str) -> dict[str, str]:
    return {name: _ESCAPE.sub(_unescape, value) for name, value in _LABEL.findall(text)}


def _unescape(found: re.Match[str]) -> str:
    return _ESCAPED.get(found.group(1), found.group(0))
