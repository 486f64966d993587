"""What is remembered of a better plan that was found, as one JSON document on the workload object.

It holds the words that status shows, so that they stay the same as long as the finding does, and which findings
people have been told of, so that each makes one event. It is about one plan in force and one wish: with another of
either it counts as nothing; so it may after an upgrade of the operator, which then tells it once more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from stowage.api.v1alpha1 import PlanBetter
from stowage.render import names
from stowage.render.canonical import canonical_json

_MOST_TOLD = 16


@dataclass(frozen=True, slots=True)
class BetterRecord:
    """`about` identifies the plan in force and the wish, `shown` is what is better now, `told` what was told."""

    about: str = ""
    shown: PlanBetter | None = None
    told: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing worth writing down."""
        return self.shown is None and not self.told

    def of(self, about: str) -> BetterRecord:
        """The record where it is about that plan and wish, else an empty one about them."""
        return self if self.about == about else BetterRecord(about)

    def showing(self, found: PlanBetter | None) -> BetterRecord:
        """The record with another finding, which counts as told."""
        if found is None or found.replan is None or found.replan in self.told:
            return replace(self, shown=found)
        return replace(self, shown=found, told=(*self.told, found.replan)[-_MOST_TOLD:])

    def to_json(self) -> str:
        """The canonical JSON form."""
        shown = None if self.shown is None else self.shown.to_dict()
        return canonical_json({"about": self.about, "shown": shown, "told": list(self.told)})


def read_better(deployment: Mapping[str, Any] | None) -> BetterRecord:
    """Read the record of a Deployment; one that cannot be read counts as none, which costs one more event."""
    text = ((deployment or {}).get("metadata", {}).get("annotations") or {}).get(names.BETTER_ANNOTATION)
    if not text:
        return BetterRecord()
    try:
        document = json.loads(text)
        shown = document["shown"]
        return BetterRecord(
            str(document["about"]),
            None if shown is None else PlanBetter.model_validate(shown),
            tuple(str(each) for each in document["told"]),
        )
    except (KeyError, TypeError, ValueError, RecursionError):
        return BetterRecord()
