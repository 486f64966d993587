"""Whether a lossy plan pays, and what 8 bits would bring: the search again, over the variants that the policy allows.

A lossy plan must do what nothing lossless does, or improve what the priority asks for by a margin that outweighs the
check it needs; and the bottleneck must be one that the format relieves. It is a contender until the check has passed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from typing import Final

from stowage.api.v1alpha1 import PrecisionPolicy, Priority
from stowage.memory.release.engine_version import EngineVersion
from stowage.model.profile import ModelProfile
from stowage.performance.boundness import Bound
from stowage.planning.assemble import assemble
from stowage.planning.groups import GpuGroup
from stowage.planning.result import Plan, PlanRequest
from stowage.planning.search.judge import Judge, Score, request_seconds
from stowage.planning.search.lossy import Variant, eight_bit_on_load, helps, lossy_variants, weight_bits
from stowage.planning.search.shapes import Search
from stowage.planning.speed_notes import duration, money

_LEAST_GAIN: Final = 0.05
"""Share by which a lossy plan must beat the lossless one."""

_ALL_MET: Final = (0.0, 0.0, float("inf"))
"""A key that only scores which fit without doubt and meet all objectives are below."""

_SHOWN_FROM_PARAMETERS: Final = 13 * 10**9
_RELIEVES: Final[Mapping[str, frozenset[Bound]]] = {
    "both": frozenset({Bound.COMPUTE, Bound.MEMORY_BANDWIDTH, Bound.KV_CAPACITY}),
    "decode": frozenset({Bound.MEMORY_BANDWIDTH, Bound.KV_CAPACITY}),
    "cache": frozenset({Bound.KV_CAPACITY, Bound.MEMORY_BANDWIDTH}),
}


@dataclass(slots=True)
class Precision:
    """The variants of one request; `make` sets up a search for one of them on some groups."""

    request: PlanRequest
    version: EngineVersion
    groups: tuple[GpuGroup, ...]
    make: Callable[[Variant, Sequence[GpuGroup]], Search]
    _searches: dict[Variant, Search] = field(default_factory=dict)

    def search_of(self, variant: Variant) -> Search:
        """Set up the search for a variant on the groups whose GPUs have fast kernels for it, once."""
        if variant not in self._searches:
            fast = tuple(
                group for group in self.groups if helps(variant, group.gpu, self.version) is not None
            )
            self._searches[variant] = self.make(variant, fast)
        return self._searches[variant]

    def judge_of(self, score: Score) -> Judge:
        """Give the judge of a score's variant."""
        return self.search_of(score.variant).judge

    def decide(self, lossless: Score | None) -> tuple[Score | None, Score | None]:
        """Give the lossy score to take, whose check has passed, and the better one whose check has not been made."""
        taken: Score | None = None
        waiting: Score | None = None
        for score in self._paying(lossless):
            state = self._checked(score)
            if state == "passed" and (taken is None or score.order < taken.order):
                taken = score
            elif state == "unknown" and (waiting is None or score.order < waiting.order):
                waiting = score
        if waiting is not None and taken is not None and not pays(waiting, taken):
            waiting = None
        return taken, waiting

    def may_serve(self, score: Score) -> bool:
        """Tell whether the accuracy check of a lossy score has passed."""
        return self._checked(score) == "passed"

    def _paying(self, lossless: Score | None) -> Iterator[Score]:
        alternatives = self.request.alternatives
        for variant in lossy_variants(self.request.profile, self.request.spec, self.version, alternatives):
            search = self.search_of(variant)
            beat = None if lossless is None else lossless.key
            best = search.best(single_node=True, beat=beat) if search.options else None
            if best is None or (best.misses and best.misses >= (lossless.misses if lossless else 0)):
                continue
            if lossless is None or (pays(best, lossless) and self._relieves(best, lossless)):
                yield best

    def _relieves(self, best: Score, lossless: Score) -> bool:
        """Whether the format helps with what bounds the lossless plan; fewer or cheaper GPUs always do."""
        cheaper = best.hourly < lossless.hourly * (1 - _LEAST_GAIN)
        if lossless.forecast is None or cheaper or (lossless.misses and not best.misses):
            return True
        kind = helps(best.variant, best.option.candidate.group.gpu, self.version)
        bounds = {lossless.forecast.bottleneck.bound, lossless.forecast.decode.bound}
        return kind is not None and bool(bounds & _RELIEVES[kind])

    def _checked(self, score: Score) -> str:
        """Look up what the accuracy check of this plan said: "passed", "failed" or "unknown"."""
        if not self.request.passed and not self.request.failed:
            return "unknown"
        plan = assemble(self.request, self.judge_of(score), score)
        names = {plan.digest(), plan.accuracy_key()}
        if names & self.request.failed:
            return "failed"
        return "passed" if names & self.request.passed else "unknown"


def pays(lossy: Score, other: Score) -> bool:
    """Whether a score is better than another by enough: in what is missed, placed, or what the priority asks for."""
    if (lossy.fit.is_tight, bool(lossy.misses)) != (other.fit.is_tight, bool(other.misses)):
        return lossy.key < other.key
    if lossy.key[2] != other.key[2]:
        return lossy.key[2] < other.key[2]
    priority = lossy.priority
    if priority is not Priority.COST and lossy.forecast is not None and other.forecast is not None:
        if priority is Priority.LATENCY:
            length = lossy.traffic.output_tokens
            return request_seconds(lossy.forecast, length) < request_seconds(other.forecast, length) * (
                1 - _LEAST_GAIN
            )
        rates = [
            each.forecast.output_tokens_per_second.central * each.replicas
            for each in (lossy, other)
            if each.forecast
        ]
        return rates[0] > rates[1] * (1 + _LEAST_GAIN)
    return lossy.hourly < other.hourly * (1 - _LEAST_GAIN)


def eight_bit_note(precision: Precision, served: Score | None, plan: Plan) -> str | None:
    """Say what 8-bit weights would bring to a model above 13 billion parameters that is served in 16 bits."""
    profile = precision.request.profile
    if plan.lossy is not None or served is None or parameters(profile) <= _SHOWN_FROM_PARAMETERS:
        return None
    if weight_bits(profile) <= 8:
        return f"The checkpoint's weights have {weight_bits(profile)} bits already; 8-bit weights would bring nothing."
    found = eight_bit_score(precision, served)
    if found is None:
        return "8-bit weights are not an option on the GPUs that come into question: none has fast kernels for them."
    allow = (
        ""
        if precision.request.spec.precision.policy is not PrecisionPolicy.CHECKPOINT
        else " (lossy: spec.precision.policy: EightBit with an accuracy check allows it)"
    )
    return f"8-bit weights would {_gain(precision, found, served, plan)}{allow}."


def eight_bit_score(precision: Precision, served: Score | None = None) -> Score | None:
    """Search the best plan with weights quantised to fp8 on load, whatever the policy.

    Where nothing is better than what is `served`, the same shape as that answers; where nothing is served, only what
    fits without doubt and meets all objectives does.
    """
    variant = eight_bit_on_load(precision.request.profile, precision.version)
    if variant is None:
        return None
    search = precision.search_of(variant)
    beat = _ALL_MET if served is None else served.key
    best = search.best(single_node=True, beat=beat) if search.options else None
    if best is not None or served is None:
        return best
    same = [option for option in search.options if option.candidate == served.option.candidate]
    scores = [search.score(option, served.target) for option in same if option.nowhere is None]
    return next((score for score in scores if isinstance(score, Score)), None)


@lru_cache(maxsize=64)
def parameters(profile: ModelProfile) -> int:
    """Count the model's parameters, as unquantised elements."""
    inside = sum(prod(tensor.shape) for layer in profile.layers for tensor in layer.tensors)
    return inside + sum(prod(tensor.shape) for tensor in profile.outer_tensors)


def _gain(precision: Precision, found: Score, served: Score, plan: Plan) -> str:
    """Compare with the plan: GPUs and cost, then speed where both are forecast."""
    there, here = found.option.candidate, served.option.candidate
    eight = assemble(precision.request, precision.judge_of(found), found)
    shapes = [
        f"{score.replicas * each.gpus}x {each.group.gpu.name} ({each.words})"
        for score, each in ((found, there), (served, here))
    ]
    parts = [f"stay on {shapes[1]}" if shapes[0] == shapes[1] else f"take {shapes[0]} instead of {shapes[1]}"]
    if (
        eight.cost_unit == plan.cost_unit
        and eight.cost_per_hour is not None
        and plan.cost_per_hour is not None
    ):
        now, then = money(plan.cost_per_hour, plan.cost_unit), money(eight.cost_per_hour, eight.cost_unit)
        parts.append(f"{then} per hour instead of {now}" if now != then else f"the same {now} per hour")
    if eight.forecast is not None and plan.forecast is not None:
        pairs = [
            (
                each.forecast.tpot_seconds.central,
                each.forecast.output_tokens_per_second.central * each.replicas,
            )
            for each in (eight, plan)
            if each.forecast is not None
        ]
        parts.append(f"TPOT {duration(pairs[0][0])} instead of {duration(pairs[1][0])}")
        parts.append(f"{pairs[0][1]:,.0f} output tokens per second instead of {pairs[1][1]:,.0f}")
    return ", ".join(parts)
