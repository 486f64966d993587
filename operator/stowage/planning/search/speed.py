"""What traffic sees from an option, by the closed form, and how many replicas a rate takes.

Answers are remembered, since a search asks the same again and again. Latency is judged at the percentile that the
objectives name; a percentile of 50 or less means the mean.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from typing import Final

from stowage.api.refusal import Refusal
from stowage.memory.release.engine_version import EngineVersion
from stowage.performance.capacity import Floor
from stowage.performance.capacity import floor as physics
from stowage.performance.forecast import Forecast
from stowage.performance.pace import pace_of
from stowage.performance.roofline import Roofline, refusal_of
from stowage.performance.serving import Serving
from stowage.performance.steady import Sketch, sketch
from stowage.performance.step_parts import StepBatch
from stowage.performance.traffic import Traffic
from stowage.planning.demand import Demand, Objectives
from stowage.planning.search.candidate import Candidate
from stowage.planning.search.fit import Fit
from stowage.planning.search.lossy import Variant
from stowage.planning.search.solve import largest
from stowage.planning.settings import EngineSettings

_HEADROOM: Final = 0.85
"""Share of the saturated rate that a replica is sized for at most: beyond, the queue grows with every burst."""

_MOST_DILUTION: Final = 64
"""Times the replicas for the rate alone beyond which more replicas are not tried to meet a latency."""

_ENDLESS: Final = 10**6

_Question = tuple[EngineSettings, str, bool, int, Traffic]
"""What an answer depends on: settings, GPU, whether ranks share a node, tokens of KV cache, and the traffic."""


@dataclass(slots=True)
class Speed:
    """Forecasts for one variant of the model, one demand and its objectives."""

    variant: Variant
    version: EngineVersion
    demand: Demand
    objectives: Objectives
    asked_replicas: int
    _sketches: dict[_Question, Sketch | Refusal] = field(default_factory=dict)
    _forecasts: dict[_Question, Forecast | Refusal] = field(default_factory=dict)
    _floors: dict[tuple[EngineSettings, str, bool, int], Floor] = field(default_factory=dict)

    def sketch(
        self, candidate: Candidate, settings: EngineSettings, kv_tokens: int, traffic: Traffic
    ) -> Sketch | Refusal:
        """Work out latencies and rate by the closed form, or recall them."""
        key = (settings, candidate.group.gpu.name, _same_node(candidate), kv_tokens, traffic)
        found = self._sketches.get(key)
        if found is None:
            serving = self.serving(candidate, settings, kv_tokens)
            found = refusal_of(serving, traffic) or sketch(serving, traffic)
            self._sketches[key] = found
        return found

    def of(self, candidate: Candidate, fit: Fit, traffic: Traffic) -> Sketch | Refusal:
        """Sketch a candidate with the settings that were found for it."""
        return self.sketch(candidate, fit.settings, fit.ledger.kv_tokens, traffic)

    def forecast(self, candidate: Candidate, fit: Fit, traffic: Traffic) -> Forecast | Refusal:
        """Give the whole forecast by the closed form: the figures of the sketch, with bands and what bounds them."""
        key = (fit.settings, candidate.group.gpu.name, _same_node(candidate), fit.ledger.kv_tokens, traffic)
        found = self._forecasts.get(key)
        if found is None:
            serving = self.serving(candidate, fit.settings, fit.ledger.kv_tokens)
            found = self._forecasts[key] = Roofline(fast=True).forecast(serving, traffic)
        return found

    def serving(self, candidate: Candidate, settings: EngineSettings, kv_tokens: int) -> Serving:
        """Give what would run."""
        return Serving(
            profile=self.variant.profile,
            shape=settings.shape(self.version.default_gpu_memory_utilization),
            gpu=candidate.group.gpu,
            version=self.version,
            kv_tokens=max(1, kv_tokens),
            same_node=_same_node(candidate),
        )

    def misses(self, found: Forecast | Sketch) -> float:
        """Give the largest ratio of a latency to its objective, 0 where all are met."""
        worst = max(self.ratios(found))
        return worst if worst > 1 else 0.0

    def ratios(self, found: Forecast | Sketch) -> tuple[float, float]:
        """Give the ratios of TTFT and of TPOT to their objectives, 0 for one that is not asked for."""
        asked = self.objectives
        ttft, tpot = self.latencies(found)
        return _over(ttft, asked.ttft_seconds), _over(tpot, asked.tpot_seconds)

    def latencies(self, found: Forecast | Sketch) -> tuple[float, float]:
        """Give TTFT and TPOT in seconds, at the percentile that the objectives name or on average."""
        tail = self.objectives.percentile > 50
        if isinstance(found, Sketch):
            return (found.ttft_percentile, found.tpot_percentile) if tail else (found.ttft, found.tpot)
        if tail:
            return found.ttft_p95_seconds, found.tpot_p95_seconds
        return found.ttft_seconds.central, found.tpot_seconds.central

    def tpot_ratio(self, candidate: Candidate, fit: Fit, concurrency: int) -> float:
        """Give the ratio of TPOT to its objective with so many requests in flight."""
        found = self.of(candidate, fit, self.demand.closed(concurrency))
        return 0.0 if isinstance(found, Refusal) else self.ratios(found)[1]

    def least_misses(self, candidate: Candidate, settings: EngineSettings) -> float:
        """Give a ratio that no settings go below: one prompt alone, and one answer alone."""
        if not self.objectives.any:
            return 0.0
        asked, serving = self.objectives, self.serving(candidate, settings, _ENDLESS)
        ttft = tpot = 0.0
        if asked.ttft_seconds is not None:
            ttft = self.floor(candidate, settings, candidate.pipeline_parallel_size).ttft_seconds
        if asked.tpot_seconds is not None:
            context = self.demand.closed(1).mean_context_tokens
            tpot = pace_of(serving).seconds(StepBatch(decode_sequences=1, decode_context=context))
        worst = max(_over(ttft, asked.ttft_seconds), _over(tpot, asked.tpot_seconds))
        return worst if worst > 1 else 0.0

    def floor(self, candidate: Candidate, settings: EngineSettings, chunks: int = 1) -> Floor:
        """Give the latencies that physics allows a request which has the replica for itself, or recall them.

        `chunks` of its prompt are in stages of a pipeline at once.
        """
        key = (settings, candidate.group.gpu.name, _same_node(candidate), chunks)
        found = self._floors.get(key)
        if found is None:
            serving = self.serving(candidate, settings, _ENDLESS)
            found = self._floors[key] = physics(serving, self.demand.closed(1), chunks)
        return found

    def replicas_for(self, requests_per_second: float, rate: float) -> int:
        """Give the replicas that a rate takes at least where one replica cannot do more than `requests_per_second`."""
        sized = requests_per_second * _HEADROOM
        return max(self.asked_replicas, ceil(rate / sized) if sized > 0 else 1)

    def least_replicas(self, candidate: Candidate, fit: Fit, rate: float) -> int:
        """Give the replicas without which TPOT or the rate itself is out of reach, whatever TTFT asks for.

        Answers come later the more requests are in flight, and a closed loop of each batch says both at once.
        """
        endless = self.of(candidate, fit, self.demand.closed(_ENDLESS))
        if isinstance(endless, Refusal):
            return self.asked_replicas
        least = self.replicas_for(endless.request_rate, rate)
        if self.objectives.tpot_seconds is None or self.tpot_ratio(candidate, fit, 1) > 1:
            return least
        most = max(1, round(endless.decode_batch + 1)) * candidate.data_parallel_size
        batch = largest(lambda number: 1 - self.tpot_ratio(candidate, fit, number), 1, most)
        within = self.of(candidate, fit, self.demand.closed(batch + 1))
        if isinstance(within, Refusal) or batch >= most:
            return least
        return max(least, ceil(rate / max(within.request_rate, 1e-9)))

    def replicas(self, candidate: Candidate, fit: Fit, rate: float, least: int) -> int:
        """Give the fewest replicas, `least` or more, that meet the objectives at this rate; `least` where none do.

        Latency falls with the load of a replica, so that steps that double and then halve find the fewest.
        """

        def meets(replicas: int) -> bool:
            return self._meets(candidate, fit, self.demand.arriving(rate / replicas))

        if not self.objectives.any or meets(least) or not meets(least * _MOST_DILUTION):
            return least
        low, step = least, 1
        while not meets(low + step):
            low, step = low + step, 2 * step
            if low > least * _MOST_DILUTION:
                return least
        high = low + step
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if meets(middle) else (middle, high)
        return high

    def _meets(self, candidate: Candidate, fit: Fit, traffic: Traffic) -> bool:
        found = self.of(candidate, fit, traffic)
        return not isinstance(found, Refusal) and not self.misses(found)


def _same_node(candidate: Candidate) -> bool:
    """Whether tensor-parallel ranks reach each other without the network."""
    return candidate.tensor_parallel_size <= candidate.gpus_per_node


def _over(seen: float, asked: float | None) -> float:
    """Give the ratio of a latency to its objective."""
    if asked is None:
        return 0.0
    return seen / asked if asked > 0 else float("inf")
