"""Planning for hardware class GPU, from the request to the result: lossless first, then what the policy allows.

The order of decisions is the order of promises: what is asked for must fit and have a place; a plan in force is kept
while that holds; a lossy plan is only ever a contender until its accuracy check has passed; a shape over several nodes
is shown, and the best on one node is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.hardware.inventory import Inventory
from stowage.memory.release.engine_version import EngineVersion
from stowage.planning.assemble import assemble
from stowage.planning.demand import demand_of, objectives_of
from stowage.planning.groups import GpuGroup, excluded, gpu_groups, unknown_gpu
from stowage.planning.kept import keep
from stowage.planning.refused.no_gpu import no_gpu, unusable_nodes
from stowage.planning.refused.others import Others
from stowage.planning.refused.suggestions import would_fit
from stowage.planning.refused.unmet import below_floor, unmet
from stowage.planning.result import Plan, PlanRequest, PlanResult, Rejection
from stowage.planning.search.candidate import candidates
from stowage.planning.search.fit import Fitter
from stowage.planning.search.judge import Judge, Score
from stowage.planning.search.lossy import Variant
from stowage.planning.search.option import Options
from stowage.planning.search.precision import Precision, eight_bit_note, eight_bit_score
from stowage.planning.search.shapes import Search
from stowage.planning.search.speed import Speed
from stowage.planning.search.stepped import step_best
from stowage.planning.search.targets import Target, targets

_MOST_PLACES: int = 4096


def plan_on_gpus(request: PlanRequest, inventory: Inventory) -> PlanResult:
    """Plan for hardware class GPU."""
    planning = planning_of(request, inventory)
    if isinstance(planning, Refusal):
        return PlanResult(None, planning)
    groups = gpu_groups(inventory, request.spec)
    unusable = unusable_nodes(request, inventory)
    ruled_out = [(group, excluded(group, request.profile, request.spec)) for group in groups]
    out = [Rejection(group.gpu.name, why.reason, why.message) for group, why in ruled_out if why is not None]
    usable = tuple(group for group, why in ruled_out if why is None)
    if not usable:
        refusal = no_gpu(request, inventory, groups, (*out, *unusable))
        fitter = Fitter(request.profile, request.spec, planning.version, request.calibration)
        return PlanResult(None, refusal, (*out, *unusable), would_fit(fitter, planning.aims, ()))
    result = planning.run(usable)
    return replace(result, rejections=(*result.rejections, *out, *unusable))


def planning_of(request: PlanRequest, inventory: Inventory) -> Planning | Refusal:
    """Set up planning: the engine's version and the targets, or why there can be none."""
    version = request.engine()
    if isinstance(version, Refusal):
        return version
    aims = targets(request.profile, request.spec)
    if isinstance(aims, Refusal):
        return aims
    return unknown_gpu(request.spec) or Planning(request, inventory, version, aims)


@dataclass(slots=True)
class Planning:
    """One request on one snapshot, with what all variants share."""

    request: PlanRequest
    inventory: Inventory
    version: EngineVersion
    aims: tuple[Target, ...]
    _options: Options | None = None

    def run(self, groups: tuple[GpuGroup, ...]) -> PlanResult:
        """Choose among all options, and say why the others were not taken."""
        lossless = self.search(Variant(self.request.profile), groups)
        impossible = below_floor(lossless)
        best = None if impossible is not None else lossless.best()
        served = best if best is None or best.option.candidate.nodes == 1 else lossless.best(single_node=True)
        short = impossible or unmet(lossless.judge, served or best)
        if short is not None:
            served = None
        choice = None if served is None else step_best(self.request, lossless, served)
        served = served if choice is None else choice.score
        precision = Precision(self.request, self.version, groups, self.search)
        passed, pending = precision.decide(served)
        over = {} if choice is None else {id(score.option): why for score, why in choice.passed_over}
        others = Others(lossless, served or best, self.request, over).explained()
        multi = self._multi_node(lossless, best)
        waiting = None if pending is None else assemble(self.request, precision.judge_of(pending), pending)
        if passed is not None:
            lossy = step_best(self.request, precision.search_of(passed.variant), passed, precision.may_serve)
            if choice is None or lossy.met or not choice.meets_objectives:
                choice = lossy
            else:
                passed = None
        if choice is None:
            refusal = self._refusal(lossless, short, multi, waiting)
            suggestions = self._eight_bits(precision)
            if short is None:
                suggestions = (*would_fit(lossless.judge.fitter, self.aims, groups), *suggestions)
            return PlanResult(None, refusal, others.rejections, suggestions, (), waiting, None, multi)
        search = lossless if passed is None else precision.search_of(passed.variant)
        plan, better = keep(self.request, search, choice.plan, choice.score)
        if choice.note is not None and better is None and plan.digest() == choice.plan.digest():
            plan = replace(plan, notes=(*plan.notes, choice.note))
        plan = self._with_notes(plan, precision, served, multi, better)
        return PlanResult(plan, None, others.rejections, (), others.alternatives, waiting, better, multi)

    def _eight_bits(self, precision: Precision) -> tuple[str, ...]:
        """Name 8-bit weights among what would fit, where nothing lossless does."""
        found = eight_bit_score(precision)
        if found is None or found.fit.is_tight or found.misses:
            return ()
        where = f"{found.option.candidate.gpus}x {found.option.candidate.group.gpu.name}"
        return (f"fp8 weights on {where} (lossy: spec.precision.policy EightBit with an accuracy check)",)

    def search(self, variant: Variant, groups: Sequence[GpuGroup]) -> Search:
        """Set up the search for one variant on some of the groups."""
        request = self.request
        objectives, demand = objectives_of(request.spec), demand_of(request.spec, self.aims[0].context_tokens)
        fitter = Fitter(variant.profile, request.spec, self.version, request.calibration)
        speed = Speed(variant, self.version, demand, objectives, max(1, request.replicas))
        judge = Judge(request.spec, self.version, variant, fitter, speed)
        if self._options is None:
            most = _MOST_PLACES if demand.rate is not None else max(1, request.replicas)
            self._options = Options(request, self.inventory, most)
        found = candidates(groups, variant.profile, request.spec)
        return Search(judge, self.aims, tuple(map(self._options.of, found)))

    def _multi_node(self, search: Search, best: Score | None) -> Plan | None:
        if best is None or best.option.candidate.nodes == 1:
            return None
        return assemble(self.request, search.judge, best)

    def _refusal(
        self, search: Search, short: Refusal | None, multi: Plan | None, waiting: Plan | None
    ) -> Refusal:
        if waiting is not None:
            return Refusal(
                Reason.ACCURACY_CHECK_PENDING,
                f"Nothing lossless does what is asked for; {waiting.lossy} on {waiting.gpus_per_replica}x "
                f"{waiting.gpu_product} would, once its accuracy check has passed.",
            )
        if short is not None:
            return short
        if multi is not None:
            return Refusal(
                Reason.NOT_SUPPORTED,
                f"Only a replica over {multi.nodes_per_replica} nodes fits ({multi.gpus_per_replica}x "
                f"{multi.gpu_product}), which this version plans and explains, but does not serve.",
                "Use larger nodes, or see what would fit on one.",
            )
        return Others(search, None, self.request).refusal()

    def _with_notes(
        self, plan: Plan, precision: Precision, served: Score | None, multi: Plan | None, better: Plan | None
    ) -> Plan:
        notes = list(plan.notes)
        if multi is not None:
            notes.append(
                f"{multi.gpus_per_replica}x {multi.gpu_product} over {multi.nodes_per_replica} nodes would be better, "
                "but replicas that span nodes are planned and not served by this version (NotSupported)."
            )
        if better is not None:
            notes.append(
                f"This plan is kept since it still fits; a new one would take {better.gpus_per_replica}x "
                f"{better.gpu_product} per replica at {better.cost_per_hour or 0:,.2f} {better.cost_unit} per hour "
                f"in all instead of {plan.cost_per_hour or 0:,.2f} {plan.cost_unit}."
            )
        note = eight_bit_note(precision, served, plan)
        return replace(plan, notes=(*notes, *((note,) if note else ())))
