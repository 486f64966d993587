"""The search over GPU shapes: the best that fits and has a place, proven among all candidates.

Candidates are judged in the order of the best that they could be; the search ends when what is left cannot be better
than what was found. Targets are tried from the one aimed at downwards; the first that any placeable shape holds
without doubt decides. A shape that only fits if the estimates are kind (Tight) is taken only where no target has a
better one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from stowage.planning.search.bounds import bound, is_beaten, quick_bound
from stowage.planning.search.fit import Fit, Misfit
from stowage.planning.search.judge import Judge, Key, Score
from stowage.planning.search.option import Option
from stowage.planning.search.targets import Target


@dataclass(slots=True)
class Search:
    """The options of one variant, in order; `scores` keeps what was judged, by option and target."""

    judge: Judge
    aims: tuple[Target, ...]
    options: tuple[Option, ...]
    scores: dict[tuple[int, Target], Score | Misfit] = field(default_factory=dict)
    _bounds: dict[int, Key] = field(default_factory=dict)
    _quick: dict[int, Key] = field(default_factory=dict)

    def best(self, *, single_node: bool = False, beat: Key | None = None) -> Score | None:
        """Find the best score that has a place; None where nothing fits, or nothing could be below `beat`."""
        tight: list[Score] = []
        for target in self.aims:
            found = self._best_at(target, single_node=single_node, beat=beat)
            if found is not None and not found.fit.is_tight:
                return found
            tight += [found] if found is not None else []
        return tight[0] if tight else None

    def next_best(self, first: Score, without: frozenset[int]) -> Score | None:
        """Find the best score at the target of `first` that meets the objectives, on none of these options (ids).

        It spans nodes only where `first` does, and fits as surely; None where there is none.
        """
        tight, single_node = float(first.fit.is_tight), first.option.candidate.nodes == 1
        beat = (tight, 0.0, float("inf"))
        found = self._best_at(first.target, single_node=single_node, beat=beat, without=without)
        return found if found is not None and found.key < beat else None

    def score(self, option: Option, target: Target) -> Score | Misfit:
        """Judge an option, or recall it."""
        found = self._scored(option, target, None)
        if found is None:
            raise RuntimeError(f"{option.candidate} was not judged to the end")
        return found

    def frugal(self, option: Option) -> Fit | Misfit:
        """Tell whether an option holds at least the least that is acceptable."""
        return self.judge.frugal(option.candidate, self.aims[-1])

    def bound(self, option: Option) -> Key:
        """Give a key that no score of the option is below."""
        if id(option) not in self._bounds:
            self._bounds[id(option)] = bound(self.judge, option)
        return self._bounds[id(option)]

    def _best_at(
        self, target: Target, *, single_node: bool, beat: Key | None, without: frozenset[int] = frozenset()
    ) -> Score | None:
        """Judge options in the order of their bounds, which are made sharper as they come to the front."""
        best: Score | None = None
        heap = [
            (self._quick_bound(option), False, place)
            for place, option in enumerate(self.options)
            if option.nowhere is None
            and id(option) not in without
            and not (single_node and option.candidate.nodes > 1)
        ]
        heapify(heap)
        while heap:
            least, is_sharp, place = heappop(heap)
            option, limit = self.options[place], beat if best is None else best.key
            if limit is not None and limit < least:
                break
            if not is_sharp:
                heappush(heap, (self.bound(option), True, place))
                continue
            score = self._scored(option, target, limit)
            if isinstance(score, Score) and (best is None or score.order < best.order):
                best = score
        return best

    def _quick_bound(self, option: Option) -> Key:
        if id(option) in self._bounds:
            return self._bounds[id(option)]
        if id(option) not in self._quick:
            self._quick[id(option)] = quick_bound(self.judge, option)
        return self._quick[id(option)]

    def _scored(self, option: Option, target: Target, beat: Key | None) -> Score | Misfit | None:
        key = (id(option), target)
        if key not in self.scores:
            if beat is not None and is_beaten(self.judge, option, target, beat):
                return None
            found = self.judge.score(option, target, beat)
            if found is None:
                return None
            self.scores[key] = found
        return self.scores[key]
