"""The search over GPU shapes: which fit, which have a place, which is cheapest, and why the others were not taken.

Targets are tried from the one aimed at downwards; the first that any placeable shape holds without doubt
decides. A shape that only fits if the estimates are kind (Tight) is taken only where no target has a better
one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stowage.api.conditions import Reason
from stowage.api.refusal import Refusal
from stowage.hardware.inventory import Inventory
from stowage.hardware.room import PodNeeds, matches_selector
from stowage.memory.engine_version import EngineVersion
from stowage.planning.candidates import (
    Candidate,
    GpuGroup,
    candidates,
    excluded,
    gpu_groups,
    needs_float16,
    unknown_gpu,
)
from stowage.planning.fit import Fit, Fitter, Misfit, base_settings
from stowage.planning.notes import gpu_notes
from stowage.planning.objective import cost_key, replica_gigabytes
from stowage.planning.placement import places, tolerations_of, why_nowhere
from stowage.planning.precision import precision_words
from stowage.planning.requests import ContainerNeeds, gpu_needs
from stowage.planning.result import Alternative, Placement, Plan, PlanRequest, PlanResult, Rejection
from stowage.planning.suggestions import would_fit
from stowage.planning.targets import Target, targets


@dataclass(frozen=True, slots=True)
class Option:
    """A candidate with what it needs and where it can go: node names, or why nowhere."""

    candidate: Candidate
    needs: PodNeeds
    container: ContainerNeeds
    node_names: tuple[str, ...]
    nowhere: Refusal | None


@dataclass(frozen=True, slots=True)
class Chosen:
    """The option that was taken, the settings it runs with and the target that it holds."""

    option: Option
    fit: Fit
    target: Target


def plan_on_gpus(request: PlanRequest, inventory: Inventory) -> PlanResult:
    """Plan for hardware class GPU."""
    version = request.engine()
    if isinstance(version, Refusal):
        return PlanResult(None, version)
    aims = targets(request.profile, request.spec)
    refusal = aims if isinstance(aims, Refusal) else unknown_gpu(request.spec)
    if refusal is not None or isinstance(aims, Refusal):
        return PlanResult(None, refusal)
    groups = gpu_groups(inventory, request.spec)
    unusable = _unusable_nodes(request, inventory)
    ruled_out = [(group, excluded(group, request.profile, request.spec)) for group in groups]
    out = [Rejection(group.gpu.name, why.reason, why.message) for group, why in ruled_out if why is not None]
    usable = [group for group, why in ruled_out if why is None]
    fitter = Fitter(request.profile, request.spec, version)
    search = Search(request, inventory, version, fitter, aims, tuple(usable))
    if not usable:
        refusal = _no_gpu(request, inventory, groups, (*out, *unusable))
        return PlanResult(None, refusal, (*out, *unusable), would_fit(fitter, aims, ()))
    result = search.run()
    return PlanResult(
        result.plan,
        result.refusal,
        (*result.rejections, *out, *unusable),
        result.would_fit,
        result.alternatives,
    )


@dataclass(frozen=True, slots=True)
class Search:
    """One search: the request, the snapshot, the targets in order and the groups that may be used."""

    request: PlanRequest
    inventory: Inventory
    version: EngineVersion
    fitter: Fitter
    aims: tuple[Target, ...]
    groups: tuple[GpuGroup, ...]

    def run(self) -> PlanResult:
        """Find the plan, or say why there is none."""
        spec, profile = self.request.spec, self.request.profile
        options = [self._option(each) for each in candidates(self.groups, profile, spec)]
        options.sort(key=lambda option: cost_key(option.candidate))
        chosen = self._choose([option for option in options if option.node_names])
        rejections, alternatives = self._judge(options, chosen)
        if chosen is None:
            suggestions = would_fit(self.fitter, self.aims, self.groups)
            return PlanResult(None, self._refusal(options), rejections, suggestions)
        return PlanResult(self._plan(chosen), None, rejections, (), alternatives)

    def fit(self, candidate: Candidate, target: Target) -> Fit | Misfit:
        """Fit one candidate to one target."""
        profile, spec = self.request.profile, self.request.spec
        dtype = "float16" if needs_float16(candidate.group.gpu, profile) else profile.dtype
        base = base_settings(spec, self.version, dtype, candidate.tensor_parallel_size)
        return self.fitter.fit(candidate.group.device, base, target)

    def _option(self, candidate: Candidate) -> Option:
        spec, group, size = self.request.spec, candidate.group, candidate.tensor_parallel_size
        container = gpu_needs(size, group.resource_name, spec)
        selector = {**spec.hardware.node_selector, **group.node_selector}
        needs = PodNeeds(container.requests, selector, tolerations_of(spec, True), group.resource_name)
        limited = _above_limit(candidate, self.request)
        if limited is not None:
            return Option(candidate, needs, container, (), limited)
        names = places(needs, group.nodes, self.inventory.quotas, max(1, self.request.replicas))
        what = f"{size}x {group.gpu.name} on one node"
        nowhere = None if names else why_nowhere(needs, group.nodes, self.inventory.quotas, what)
        return Option(candidate, needs, container, names, nowhere)

    def _choose(self, options: Sequence[Option]) -> Chosen | None:
        """Take the cheapest that fits without doubt at the highest target; options come cheapest first."""
        tight: list[Chosen] = []
        for target in self.aims:
            fits: list[Chosen] = []
            for option in options:
                fit = self.fit(option.candidate, target)
                if isinstance(fit, Fit):
                    (tight if fit.is_tight else fits).append(Chosen(option, fit, target))
            if fits:
                return _most_replicas(fits)
        return tight[0] if tight else None

    def _plan(self, chosen: Chosen) -> Plan:
        request, option, group = self.request, chosen.option, chosen.option.candidate.group
        limit = max(request.profile.default_max_model_len, chosen.target.context_tokens)
        fit = self.fitter.longer(group.device, chosen.fit, chosen.target, limit)
        return Plan(
            engine_version=self.version.version,
            image_class="GPU",
            gpu_product=group.gpu.name,
            gpu_resource=group.resource_name,
            gpus_per_replica=option.candidate.tensor_parallel_size,
            node_selector=dict(option.needs.node_selector),
            settings=fit.settings,
            ledger=fit.ledger,
            requests=option.container.requests,
            shm_bytes=option.container.shm_bytes,
            concurrency_served=fit.concurrency,
            placement=Placement("Now", option.node_names, f"GPU model known by {group.evidence}"),
            model_revision=request.profile.revision,
            precision=precision_words(request.profile, fit.settings.dtype),
            notes=gpu_notes(request, self.version, group, fit, chosen.target, len(option.node_names)),
            request_tokens=fit.request_tokens,
            tolerations=option.needs.tolerations,
        )

    def _judge(
        self, options: Sequence[Option], chosen: Chosen | None
    ) -> tuple[tuple[Rejection, ...], tuple[Alternative, ...]]:
        """Say of every option that was not taken why not: it does not fit, has no place, or costs more."""
        rejections: list[Rejection] = []
        alternatives: list[Alternative] = []
        target = chosen.target if chosen is not None else self.aims[-1]
        for option in options:
            if chosen is not None and option is chosen.option:
                continue
            name, fit = str(option.candidate), self.fit(option.candidate, target)
            least = self.fit(option.candidate, self.aims[-1]) if isinstance(fit, Misfit) else fit
            why = least.refusal if isinstance(least, Misfit) else option.nowhere
            if why is not None:
                rejections.append(Rejection(name, why.reason, why.message))
            elif chosen is not None and isinstance(least, Fit):
                message = fit.refusal.message if isinstance(fit, Misfit) else _compare(option, fit, chosen)
                alternatives.append(Alternative(name, message))
        return tuple(rejections), tuple(alternatives)

    def _refusal(self, options: Sequence[Option]) -> Refusal:
        """Choose the cause that is closest to working: first a fitting shape without a place, then memory."""
        fits = {id(option): self.fit(option.candidate, self.aims[-1]) for option in options}
        homeless = [each for each in options if isinstance(fits[id(each)], Fit) and each.nowhere is not None]
        if homeless:
            closest = max(homeless, key=_room_for_shape)
            return closest.nowhere or Refusal(Reason.INSUFFICIENT_GPUS, "No node has room.")
        misfits = [(option, fit) for option in options if isinstance(fit := fits[id(option)], Misfit)]
        if not misfits:
            return Refusal(Reason.INSUFFICIENT_GPUS, "No node has as many GPUs as any possible shape needs.")
        best = max(misfits, key=lambda pair: (pair[1].largest_max_model_len or 0, _gigabytes(pair[0])))
        why = best[1].refusal
        return Refusal(why.reason, f"The closest shape is {best[0].candidate}: {why.message}", why.hint)


def _most_replicas(fits: Sequence[Chosen]) -> Chosen:
    """Take the cheapest of those that place the most replicas."""
    most = max(len(each.option.node_names) for each in fits)
    return next(each for each in fits if len(each.option.node_names) == most)


def _room_for_shape(option: Option) -> int:
    """Grade how near the group's nodes are to the shape: whether one is large enough, else how large."""
    return min(option.candidate.group.most_gpus_on_a_node - option.candidate.tensor_parallel_size, 0)


def _gigabytes(option: Option) -> int:
    return replica_gigabytes(option.candidate)


def _compare(option: Option, fit: Fit, chosen: Chosen) -> str:
    if fit.is_tight and not chosen.fit.is_tight:
        return "It fits only if every estimate turns out well."
    if len(option.node_names) < len(chosen.option.node_names):
        return f"It has places for {len(option.node_names)} of {len(chosen.option.node_names)} replicas."
    here, there = _gigabytes(option), _gigabytes(chosen.option)
    holds = f"It holds {fit.ledger.kv_tokens:,} tokens of KV cache"
    if here == there:
        return f"{holds} in the same {here} GB of GPU memory, on more or faster GPUs."
    return f"{holds}, but takes {here} GB of GPU memory per replica instead of {there} GB."


def _above_limit(candidate: Candidate, request: PlanRequest) -> Refusal | None:
    hardware, size = request.spec.hardware, candidate.tensor_parallel_size
    if hardware.max_gpus_per_replica is not None and size > hardware.max_gpus_per_replica:
        return Refusal(
            Reason.GPU_LIMIT_REACHED,
            f"{candidate} takes {size} GPUs per replica, more than spec.hardware.maxGPUsPerReplica "
            f"({hardware.max_gpus_per_replica}).",
        )
    wanted = size * max(1, request.replicas)
    if hardware.max_gpus is not None and wanted > hardware.max_gpus:
        return Refusal(
            Reason.GPU_LIMIT_REACHED,
            f"{request.replicas} replicas of {candidate} take {wanted} GPUs, more than spec.hardware.maxGPUs "
            f"({hardware.max_gpus}).",
        )
    return None


def _unusable_nodes(request: PlanRequest, inventory: Inventory) -> tuple[Rejection, ...]:
    """Name the nodes that the spec allows and whose GPUs cannot be used."""
    selector = request.spec.hardware.node_selector
    return tuple(
        Rejection(f"node {node.facts.name}", node.facts.refusal.reason, node.facts.refusal.sentence)
        for node in inventory.nodes
        if node.facts.refusal is not None and matches_selector(node.facts, selector)
    )


def _no_gpu(
    request: PlanRequest, inventory: Inventory, groups: Sequence[GpuGroup], found: Sequence[Rejection]
) -> Refusal:
    """Say why no GPU of the cluster comes into question."""
    if not any(node.facts.is_gpu_node for node in inventory.nodes):
        return Refusal(
            Reason.NO_GPUS,
            "The cluster has no node with GPUs.",
            "Add GPU nodes, or set spec.hardware.class: CPU to try Stowage without GPUs.",
        )
    all_groups = gpu_groups(inventory, request.spec.model_copy(update={"hardware": _unrestricted(request)}))
    names = (
        ", ".join(dict.fromkeys(group.gpu.name for group in all_groups)) or "none that can be planned with"
    )
    hardware = request.spec.hardware
    if hardware.gpus and all(each.reason is not Reason.UNSUPPORTED_DTYPE for each in found):
        wanted = ", ".join(hardware.gpus)
        return Refusal(
            Reason.NO_MATCHING_GPU,
            f"No usable node has a GPU of spec.hardware.gpus ({wanted}); the cluster has {names}.",
            "Add such nodes, or allow other GPUs.",
        )
    if not groups and not found:
        labels = ", ".join(f"{key}={value}" for key, value in sorted(hardware.node_selector.items()))
        return Refusal(
            Reason.NO_MATCHING_GPU,
            f"No GPU node has the labels of spec.hardware.nodeSelector ({labels}); the cluster has {names}.",
            "Correct the labels.",
        )
    more = f" ({len(found) - 1} more GPU nodes or types cannot be used either.)" if len(found) > 1 else ""
    return Refusal(found[0].reason, f"{found[0].message}{more}")


def _unrestricted(request: PlanRequest) -> object:
    return request.spec.hardware.model_copy(update={"node_selector": {}, "gpus": ()})
