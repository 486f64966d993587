"""Every candidate that was not taken, with the first reason why; and, where none was, the reason closest to working.

What cannot win is not judged in full unless the request is thorough: for those it is enough to know whether they hold
the model at all, and what they would cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.api.v1alpha1 import Priority
from stowage.planning.prices import GPU_HOURS, nominal_gigabytes
from stowage.planning.result import Alternative, PlanRequest, Rejection
from stowage.planning.search.candidate import Candidate
from stowage.planning.search.fit import Fit, Misfit
from stowage.planning.search.judge import Score, request_seconds
from stowage.planning.search.option import Option
from stowage.planning.search.shapes import Search
from stowage.planning.speed_notes import duration, money

_MISSES: Final = 1
_HOURLY: Final = 5
"""Places in a search key: how far objectives are missed, and under Cost what is paid by the hour."""


@dataclass(frozen=True, slots=True)
class Explained:
    """What does not fit or has no place, and what would do too."""

    rejections: tuple[Rejection, ...]
    alternatives: tuple[Alternative, ...]


@dataclass(frozen=True, slots=True)
class Others:
    """The options of a search beside the chosen one, in order of cost."""

    search: Search
    chosen: Score | None
    request: PlanRequest
    passed_over: Mapping[int, str] = field(default_factory=dict)
    """What the stepped scheduler misses on options that would have been taken, by the id of the option."""

    def explained(self) -> Explained:
        """Say of every option that was not taken why not: it does not fit, has no place, or is not as good."""
        rejections: list[Rejection] = []
        alternatives: list[tuple[float, Alternative]] = []
        plainest = self._plainest()
        for option in sorted(self.search.options, key=_in_order):
            if self.chosen is not None and option.candidate is self.chosen.option.candidate:
                continue
            score = self._score(option)
            if score is None and not self._is_shown(option, plainest):
                continue
            found = self._one(option, score)
            if isinstance(found, Rejection):
                rejections.append(found)
            elif self.chosen is not None:
                alternatives.append((option.hourly * found.replicas, found))
        ordered = sorted(alternatives, key=lambda pair: pair[0])
        return Explained(tuple(rejections), tuple(each for _, each in ordered))

    def refusal(self) -> Refusal:
        """Choose the cause that is closest to working: a limit, a fitting shape without a place, then memory."""
        judged = [score.refusal for score in self.search.scores.values() if isinstance(score, Misfit)]
        limited = [each for each in judged if each.reason is Reason.GPU_LIMIT_REACHED]
        if limited:
            return limited[0]
        fits = [
            (option, self.search.frugal(option))
            for option in self.search.options
            if option.candidate.nodes == 1
        ]
        homeless = [option for option, fit in fits if isinstance(fit, Fit) and option.nowhere is not None]
        if homeless:
            closest = max(homeless, key=_room_for_shape)
            return closest.nowhere or Refusal(Reason.INSUFFICIENT_GPUS, "No node has room.")
        misfits = [(option, fit) for option, fit in fits if isinstance(fit, Misfit)]
        if not misfits:
            return (
                judged[0]
                if judged
                else Refusal(
                    Reason.INSUFFICIENT_GPUS, "No node has as many GPUs as any possible shape needs."
                )
            )
        best = max(misfits, key=_closeness)
        why = best[1].refusal
        return Refusal(why.reason, f"The closest shape is {best[0].candidate}: {why.message}", why.hint)

    def _plainest(self) -> dict[tuple[int, int], Candidate]:
        """Give the plainest split of each group and number of GPUs."""
        found: dict[tuple[int, int], Candidate] = {}
        for option in self.search.options:
            candidate = option.candidate
            key = (id(candidate.group), candidate.gpus)
            if key not in found or _plainness(candidate) < _plainness(found[key]):
                found[key] = candidate
        return found

    def _is_shown(self, option: Option, plainest: Mapping[tuple[int, int], Candidate]) -> bool:
        """Leave out what would say the same again: further ways to split the same GPUs, and several nodes."""
        candidate = option.candidate
        if self.request.thorough or candidate.nodes > 1:
            return self.request.thorough
        return candidate is plainest[id(candidate.group), candidate.gpus]

    def _score(self, option: Option) -> Score | Misfit | None:
        """Recall the score of an option, or make it where everything is to be explained."""
        if self.chosen is None or option.nowhere is not None:
            return None
        if self.request.thorough:
            return self.search.score(option, self.chosen.target)
        return self.search.scores.get((id(option), self.chosen.target))

    def _one(self, option: Option, score: Score | Misfit | None) -> Rejection | Alternative:
        name = str(option.candidate)
        if isinstance(score, Score):
            return self._alternative(option, score)
        least = self.search.frugal(option)
        why = least.refusal if isinstance(least, Misfit) else option.nowhere
        if why is not None:
            return Rejection(name, why.reason, why.message)
        if isinstance(score, Misfit):
            return Alternative(name, score.refusal.message)
        return self._beaten(option)

    def _beaten(self, option: Option) -> Alternative:
        """Say of an option that was not judged to the end what it would come to at best."""
        bound, judge = self.search.bound(option), self.search.judge
        replicas = judge.asked_replicas
        if judge.demand.rate is not None and judge.objectives.priority is Priority.COST and option.hourly > 0:
            replicas = max(replicas, round(bound[_HOURLY] / option.hourly))
        cost, unit = self._cost(option, replicas)
        chosen = self.chosen
        if chosen is not None and bound[_MISSES] > chosen.misses:
            message = (
                f"It misses the objectives: {bound[_MISSES]:.2f} times what is asked for, at the very best."
            )
        elif (
            chosen is not None and judge.demand.rate is not None and option.hourly * replicas <= chosen.hourly
        ):
            message = (
                "At this rate it takes more replicas than would make it cheaper, or misses the objectives."
            )
            return Alternative(str(option.candidate), message)
        elif chosen is not None and judge.objectives.priority is not Priority.COST and bound > chosen.key:
            message = f"It is slower even at its best. {self._cost_words(option, replicas)}"
        else:
            message = self._cost_words(option, replicas)
        return Alternative(str(option.candidate), message, cost, unit, replicas)

    def _alternative(self, option: Option, score: Score) -> Alternative:
        cost, unit = self._cost(option, score.replicas)
        return Alternative(
            str(option.candidate), self._compare(option, score), cost, unit, score.replicas, score.forecast
        )

    def _compare(self, option: Option, score: Score) -> str:
        chosen = self.chosen
        missed = self.passed_over.get(id(option))
        if missed is not None:
            return f"It misses the objectives once its scheduler is stepped: {missed}."
        if chosen is None or (score.fit.is_tight and not chosen.fit.is_tight):
            return "It fits only if every estimate turns out well."
        if score.misses > chosen.misses:
            return (
                f"It misses the objectives: the worst latency is {score.misses:.2f} times what is asked for."
            )
        placed, asked = min(option.placed, score.replicas), score.replicas
        if placed / asked < min(chosen.option.placed, chosen.replicas) / chosen.replicas:
            return f"It has places for {placed} of {asked} replicas."
        if option.to_come(placed) and not chosen.option.to_come(chosen.replicas):
            return "It has a place only after a node pool has grown."
        if option.candidate.nodes > 1:
            return "It spans nodes, which this version does not serve."
        return f"{self._speed_words(score)}{self._cost_words(option, score.replicas)}"

    def _speed_words(self, score: Score) -> str:
        """Compare what the priority asks for, where that is not cost."""
        chosen = self.chosen
        if (
            chosen is None
            or score.forecast is None
            or chosen.forecast is None
            or score.priority is Priority.COST
        ):
            return ""
        if score.priority is Priority.LATENCY:
            length = score.traffic.output_tokens
            there, here = (
                duration(request_seconds(each, length)) for each in (score.forecast, chosen.forecast)
            )
            return f"A request takes {there} instead of {here}. "
        rates = [
            each.forecast.output_tokens_per_second.central * each.replicas
            for each in (score, chosen)
            if each.forecast
        ]
        return f"It brings {rates[0]:,.0f} tokens per second instead of {rates[1]:,.0f}. "

    def _cost_words(self, option: Option, replicas: int) -> str:
        """Compare what both cost: in money where both GPUs have a price, else by the memory they occupy."""
        chosen = self.chosen
        if chosen is None:
            return "It fits."
        cost, unit = self._cost(option, replicas)
        other, other_unit = self._cost(chosen.option, chosen.replicas)
        if unit == other_unit != GPU_HOURS:
            if abs(cost - other) < 1e-9:
                return f"It costs the same {money(cost, unit)} per hour, on more, faster or less well connected GPUs."
            return f"It costs {money(cost, unit)} per hour instead of {money(other, unit)}."
        here, there = _gigabytes(option) * replicas, _gigabytes(chosen.option) * chosen.replicas
        return f"It takes {here} GB of GPU memory instead of {there} GB."

    def _cost(self, option: Option, replicas: int) -> tuple[float, str]:
        price = self.request.prices.of(option.candidate.group.gpu)
        gpus = option.candidate.gpus * replicas
        return (float(gpus), GPU_HOURS) if price is None else (gpus * price, self.request.prices.currency)


def _plainness(candidate: Candidate) -> tuple[bool, int, int]:
    return candidate.expert_parallel, candidate.data_parallel_size, candidate.pipeline_parallel_size


def _in_order(option: Option) -> tuple[float, int, int, int, str]:
    candidate = option.candidate
    return (
        option.hourly,
        candidate.gpus,
        candidate.pipeline_parallel_size,
        candidate.data_parallel_size,
        str(candidate),
    )


def _room_for_shape(option: Option) -> tuple[int, int]:
    """Grade how near the group's nodes are to the shape: whether one is large enough, else how large."""
    candidate = option.candidate
    return min(candidate.group.most_gpus_on_a_node - candidate.gpus, 0), -candidate.pipeline_parallel_size


def _closeness(pair: tuple[Option, Misfit]) -> tuple[int, int, int, int]:
    """Grade a misfit: the longest context it would hold, then its memory, then the plainer split."""
    option, misfit = pair
    candidate = option.candidate
    plain = -(candidate.pipeline_parallel_size + candidate.data_parallel_size)
    return misfit.largest_max_model_len or 0, _gigabytes(option), plain, -int(candidate.expert_parallel)


def _gigabytes(option: Option) -> int:
    return nominal_gigabytes(option.candidate.group.gpu) * option.candidate.gpus
