"""How good an option is: the settings it runs with, what the traffic sees, how many replicas that takes, what it costs.

One judge holds one way of holding the model (a variant). Its scores are ordered by one key, so that "the best" is one
sentence: without doubt before in doubt, objectives met before missed, every replica placed before some, nodes that
exist before nodes to come, then what the spec's priority says.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import floor, log
from typing import Final

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.api.v1alpha1 import LLMDeploymentSpec, Priority
from stowage.memory.kv.attention_backend import stated_kv_dtype
from stowage.memory.release.engine_version import EngineVersion
from stowage.performance.forecast import Forecast
from stowage.performance.traffic import Traffic
from stowage.planning.demand import Demand, Objectives
from stowage.planning.groups import needs_float16
from stowage.planning.search.candidate import Candidate
from stowage.planning.search.fit import (
    LEAST_BATCHED_TOKENS,
    Caps,
    Fit,
    Fitter,
    Misfit,
    base_settings,
)
from stowage.planning.search.lossy import Variant
from stowage.planning.search.option import Option
from stowage.planning.search.solve import largest
from stowage.planning.search.speed import Speed
from stowage.planning.search.targets import Target
from stowage.planning.settings import EngineSettings

_INDIFFERENCE: Final = 1.02
"""Latencies and throughputs within the same step of two percent count as equal, and cost decides."""

DOUBT: Final = 1.1
"""What is taken off, or added, for each thing that no measurement supports."""

_TOKEN_STEP: Final = 256

Key = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """An option, judged: its settings, its traffic and forecast, the replicas it takes, and its place in the order.

    `misses` is the largest ratio of a latency to its objective, 0 where all are met.
    """

    option: Option
    variant: Variant
    target: Target
    fit: Fit
    traffic: Traffic
    forecast: Forecast | None
    replicas: int
    misses: float
    priority: Priority
    key: Key
    words: tuple[str, str]

    @property
    def hourly(self) -> float:
        """What all replicas are ranked by."""
        return self.option.hourly * self.replicas

    @property
    def order(self) -> tuple[Key, tuple[str, str]]:
        """The whole sort key: the best score has the smallest, and no two candidates have the same."""
        return self.key, self.words


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one replica's traffic sees, and the replicas that there are of it (0: those asked for)."""

    traffic: Traffic
    forecast: Forecast | None
    replicas: int = 0


@dataclass(slots=True)
class Judge:
    """Judges options for one variant of the model."""

    spec: LLMDeploymentSpec
    version: EngineVersion
    variant: Variant
    fitter: Fitter
    speed: Speed
    _bases: dict[int, tuple[Candidate, EngineSettings]] = field(default_factory=dict)
    """By the candidate's id, since its nodes take long to compare; the candidate is kept, so that no id is reused."""

    ideals: dict[int, tuple[Candidate, EngineSettings]] = field(default_factory=dict)
    """The settings that no memory limits, kept in the same way for who works out bounds."""

    leasts: dict[tuple[int, Target], tuple[Option, Key]] = field(default_factory=dict)
    """Keys that latencies alone keep an option above at a target, kept in the same way."""

    @property
    def demand(self) -> Demand:
        """What the deployment is asked to do."""
        return self.speed.demand

    @property
    def objectives(self) -> Objectives:
        """What matters about it."""
        return self.speed.objectives

    @property
    def asked_replicas(self) -> int:
        """Replicas that the spec asks for."""
        return self.speed.asked_replicas

    def base(self, candidate: Candidate) -> EngineSettings:
        """Give the settings of a candidate that no target changes."""
        if id(candidate) not in self._bases:
            self._bases[id(candidate)] = candidate, self._base(candidate)
        return self._bases[id(candidate)][1]

    def _base(self, candidate: Candidate) -> EngineSettings:
        profile, device = self.variant.profile, candidate.group.device
        dtype = "float16" if needs_float16(candidate.group.gpu, profile) else profile.dtype
        cache = stated_kv_dtype(profile.architecture, self.version.version, device.compute_capability)
        base = base_settings(self.spec, self.version, dtype, cache)
        return replace(
            base,
            tensor_parallel_size=candidate.tensor_parallel_size,
            pipeline_parallel_size=candidate.pipeline_parallel_size,
            data_parallel_size=candidate.data_parallel_size,
            enable_expert_parallel=candidate.expert_parallel,
            quantization=self.variant.quantization,
            kv_cache_dtype=self.variant.kv_cache_dtype or base.kv_cache_dtype,
        )

    def frugal(self, candidate: Candidate, target: Target) -> Fit | Misfit:
        """Tell whether a candidate holds the target at all."""
        return self.fitter.frugal(candidate.group.device, self.base(candidate), target)

    def score(self, option: Option, target: Target, beat: Key | None = None) -> Score | Misfit | None:
        """Judge an option, whether or not it meets the objectives; a misfit where it does not hold the target.

        None: it is certain before the end that its key is above `beat`.
        """
        candidate = option.candidate
        caps = Caps() if self._counts_sequences else Caps(seqs=1)
        fit = self.fitter.fit(candidate.group.device, self.base(candidate), target, caps)
        if isinstance(fit, Misfit):
            return fit
        fit = self._within_tpot(option, target, fit, caps)
        if self.demand.rate is not None:
            least = self.speed.least_replicas(candidate, fit, self.demand.rate)
            if beat is not None and beat < (0.0, 0.0, 0.0, 0.0, *self.cheapest(option, least)):
                return None
        return self.judged(option, target, fit)

    def settle(self, score: Score, caps: Caps) -> Fit:
        """Find the settings of a score with every limit solved, also those that no score depends on."""
        caps = replace(caps, tokens=score.fit.settings.max_num_batched_tokens)
        device, base = score.option.candidate.group.device, self.base(score.option.candidate)
        found = self.fitter.fit(device, base, score.target, caps)
        return score.fit if isinstance(found, Misfit) or found.is_tight != score.fit.is_tight else found

    @property
    def _counts_sequences(self) -> bool:
        """Whether a score depends on how many sequences run at most; a stated load in flight is always run."""
        asked = self.objectives.priority is Priority.THROUGHPUT and not self.demand.concurrency_stated
        return asked or self.demand.rate is not None

    def judged(self, option: Option, target: Target, fit: Fit) -> Score | Misfit:
        """Judge an option with exactly these settings."""
        if self.demand.rate is not None:
            return self._by_rate(option, target, fit, self.demand.rate)
        traffic = self.demand.closed(self._concurrency(fit))
        forecast = self.speed.forecast(option.candidate, fit, traffic)
        if isinstance(forecast, Refusal):
            if self.depends_on_speed:
                return Misfit(forecast)
            return self._score(option, target, fit, _Seen(traffic, None))
        return self._score(option, target, fit, _Seen(traffic, forecast))

    @property
    def depends_on_speed(self) -> bool:
        """Whether anything asked for depends on speed; if not, an estimator without an answer does no harm."""
        asked = self.objectives
        return asked.any or self.demand.rate is not None or asked.priority is not Priority.COST

    def cheapest(self, option: Option, replicas: int) -> Key:
        """Give a preference that no score of the option with so many replicas, or more, is below."""
        if self.objectives.priority is not Priority.COST:
            return ()
        return (0.0, *cost_order(option.candidate, option.hourly * replicas), 0.0)

    def _concurrency(self, fit: Fit) -> int:
        """Give the requests in flight that an option is judged at: stated, or all it runs where throughput counts."""
        ranks = fit.settings.data_parallel_size
        if self.objectives.priority is Priority.THROUGHPUT and not self.demand.concurrency_stated:
            return max(1, min(fit.concurrency, fit.settings.max_num_seqs * ranks))
        return self.demand.concurrency

    def _by_rate(self, option: Option, target: Target, fit: Fit, rate: float) -> Score | Misfit:
        """Judge an option by the replicas that the stated rate takes."""
        candidate = option.candidate
        least = self.speed.least_replicas(candidate, fit, rate)
        replicas = self.speed.replicas(candidate, fit, rate, least)
        if option.limit is not None and replicas > option.limit:
            message = (
                f"{rate:g} requests per second take {replicas} replicas of {candidate}, and "
                f"spec.hardware.maxGPUs leaves {option.limit}."
            )
            return Misfit(Refusal(Reason.GPU_LIMIT_REACHED, message))
        traffic = self.demand.arriving(rate / replicas)
        forecast = self.speed.forecast(candidate, fit, traffic)
        if isinstance(forecast, Refusal):
            return Misfit(forecast)
        return self._score(option, target, fit, _Seen(traffic, forecast, replicas))

    def _within_tpot(self, option: Option, target: Target, fit: Fit, caps: Caps) -> Fit:
        """Lower max_num_batched_tokens where prompts in a step keep answers from arriving within the objective.

        The largest budget that meets it is taken, since a larger one brings the first token sooner; where none does,
        the settings stay as memory alone has them. A smaller budget only ever leaves more cache.
        """
        pinned = self.spec.engine.max_num_batched_tokens is not None
        if self.objectives.tpot_seconds is None or pinned:
            return fit
        candidate, load, most = option.candidate, self._concurrency(fit), fit.settings.max_num_batched_tokens

        def slack(steps: int) -> float:
            settings = replace(fit.settings, max_num_batched_tokens=most - steps * _TOKEN_STEP)
            return self.speed.tpot_ratio(candidate, replace(fit, settings=settings), load) - 1

        fewest = (most - max(LEAST_BATCHED_TOKENS, fit.settings.max_num_seqs)) // _TOKEN_STEP
        if fewest < 1 or slack(0) <= 0 or slack(fewest) > 0:
            return fit
        tokens = most - (largest(slack, 0, fewest) + 1) * _TOKEN_STEP
        device, base = candidate.group.device, self.base(candidate)
        found = self.fitter.fit(device, base, target, replace(caps, tokens=tokens))
        return fit if isinstance(found, Misfit) else found

    def _score(self, option: Option, target: Target, fit: Fit, seen: _Seen) -> Score:
        forecast, replicas = seen.forecast, seen.replicas or self.asked_replicas
        misses = 0.0 if forecast is None else self.speed.misses(forecast)
        placed = min(option.placed, replicas)
        key = (
            float(fit.is_tight),
            misses,
            1 - placed / replicas,
            float(option.to_come(placed) > 0),
            *self._preference(option, forecast, replicas),
        )
        names, priority = _names(option.candidate), self.objectives.priority
        return Score(
            option, self.variant, target, fit, seen.traffic, forecast, replicas, misses, priority, key, names
        )

    def _preference(self, option: Option, forecast: Forecast | None, replicas: int) -> Key:
        cost = cost_order(option.candidate, option.hourly * replicas)
        if forecast is None:
            return (0.0, *cost, 0.0)
        seconds = _careful_seconds(forecast, self.demand.output_tokens)
        if self.objectives.priority is Priority.LATENCY:
            return (grade(seconds), *cost, seconds)
        if self.objectives.priority is Priority.THROUGHPUT:
            return (-grade(_careful_rate(forecast) * replicas), *cost, seconds)
        return (0.0, *cost, seconds)


def request_seconds(forecast: Forecast, output_tokens: int) -> float:
    """Give the mean time of a whole request."""
    return forecast.ttft_seconds.central + forecast.tpot_seconds.central * max(0, output_tokens - 1)


def _careful_seconds(forecast: Forecast, output_tokens: int) -> float:
    """Give the time of a whole request, a tenth longer for each thing in it that no measurement supports.

    So what was never measured is taken only where it is better by more than a little.
    """
    return request_seconds(forecast, output_tokens) * DOUBT ** len(forecast.unmeasured)


def _careful_rate(forecast: Forecast) -> float:
    """Give the output tokens per second, less in the same way."""
    return forecast.output_tokens_per_second.central / DOUBT ** len(forecast.unmeasured)


def cost_order(candidate: Candidate, hourly: float) -> Key:
    """Order by cost; among equals fewer GPUs, which talk less, then NVLink where there is talk, then slower cards.

    The slower card comes first so that fast ones stay free for who needs them.
    """
    gpu, size = candidate.group.gpu, candidate.gpus
    speed = (gpu.bf16_flops or gpu.fp16_flops) / 1e12 * gpu.memory_bytes_per_second / 1e9
    return (round(hourly, 6), size, float(size > 1 and not gpu.has_fast_link), speed)


def grade(value: float) -> float:
    """Give the step of two percent that a latency or a throughput is on."""
    return float(floor(log(max(value, 1e-9)) / log(_INDIFFERENCE)))


def _names(candidate: Candidate) -> tuple[str, str]:
    """Give what tells candidates apart that are equally good: the plainer split first, then the group's name."""
    group = candidate.group
    labels = ",".join(f"{key}={value}" for key, value in sorted(group.node_selector.items()))
    plain = (candidate.data_parallel_size > 1, candidate.expert_parallel, candidate.pipeline_parallel_size)
    return "".join(f"{int(part):04}" for part in plain), f"{group.gpu.name} {labels} {candidate.words}"
