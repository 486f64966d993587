"""Which start-ups of our replicas can teach something, and what each measured beside what was predicted.

Only what a real engine printed on a whole GPU counts, of the release and with the options that were planned, and only
where the printed parts add up to the budget. What was predicted is computed without any correction, or corrections
would be learnt from themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from stowage import __version__
from stowage.api.refusal import Refusal
from stowage.engine.model_step import ModelStep
from stowage.engine.record import InForce
from stowage.engine.situation import Situation
from stowage.engine.start_up_record import StartUp
from stowage.hardware.on_request import with_requested
from stowage.memory.budget import ledger
from stowage.memory.calibration import CalibrationKey, Terms, calibration_key, start_record
from stowage.memory.device import DeviceMemory
from stowage.memory.ledger import Ledger
from stowage.memory.release.engine_version import engine_version, release_numbers
from stowage.model.profile import ModelProfile
from stowage.planning.groups import gpu_groups
from stowage.planning.plan import Plan
from stowage.render.canonical import digest
from stowage.render.pod_template import template_hash
from stowage.world import PodReport
from stowage_runtime.contract import EngineFacts

_MOST_OF_A_SHAPE = 8
"""Start-ups of one shape that are kept: more hardly move a median, and each costs a write."""

_MOST_IN_ALL = 32

_TUNING = ("VLLM_", "PYTORCH_", "NCCL_", "CUDA_")
"""Prefixes of variables that change what an engine takes; the plan knows nothing of them."""

_HARMLESS = frozenset({"VLLM_LOGGING_LEVEL"})


@dataclass(frozen=True, slots=True)
class _Start:
    """A start that has been reported and is not written down yet."""

    name: str
    started_at: str
    facts: EngineFacts


def has_new_start_ups(situation: Situation) -> bool:
    """Whether a replica has reported a start that may teach something."""
    return bool(_new_starts(situation))


def with_new_start_ups(situation: Situation, model: ModelStep) -> tuple[StartUp, ...]:
    """Give what is written down, together with what new starts have measured."""
    record, known = situation.in_force, situation.start_ups
    profile = None if record is None else _served_profile(record.plan, model)
    device = None if record is None else _device(situation, record)
    if record is None or profile is None or device is None:
        return known
    found = [
        start_up
        for start in _new_starts(situation)
        if (start_up := _measured(start, record.plan, profile, device)) is not None
    ]
    return _kept(known, found) if found else known


def _new_starts(situation: Situation) -> list[_Start]:
    record = situation.in_force
    if record is None or not _is_comparable(record):
        return []
    current = {
        pod["metadata"].get("uid", "")
        for pod in situation.world.pods
        if template_hash(pod) == record.template_hash
    }
    known = {each.start for each in situation.start_ups if each.sized_by == __version__}
    starts = (_start(item) for item in situation.world.reports if item.pod_uid in current)
    full = _is_full(situation.start_ups, record.plan)
    return [
        start
        for start in starts
        if start is not None and start.name not in known and not full and _can_teach(start.facts, record.plan)
    ]


def _is_comparable(record: InForce) -> bool:
    """Whether the engine runs as it was sized: on GPUs, with the KV cache that it finds room for, nothing tuned."""
    runtime, plan = record.spec.runtime, record.plan
    tuned = any(each.name.startswith(_TUNING) and each.name not in _HARMLESS for each in runtime.env)
    pinned = plan.settings.kv_cache_memory_bytes is not None
    return plan.gpu_product is not None and not pinned and not runtime.args and not tuned


def _start(item: PodReport) -> _Start | None:
    report = item.report
    if report.phase != "Serving" or report.engine.kind != "vllm":
        return None
    return _Start(digest([item.pod_uid, report.started_at], 12), report.started_at, report.engine)


def _can_teach(facts: EngineFacts, plan: Plan) -> bool:
    running, planned = release_numbers(facts.version or ""), release_numbers(plan.engine_version)
    if running is None or planned is None or running[:2] != planned[:2]:
        return False
    needed = (facts.weights_bytes, facts.kv_cache_bytes, facts.activation_bytes, facts.non_torch_bytes)
    return all(each is not None for each in needed)


def _is_full(known: Iterable[StartUp], plan: Plan) -> bool:
    """Whether enough starts of this shape are written down."""
    own = [
        each.record.key for each in known if each.sized_by == __version__ and _is_of(each.record.key, plan)
    ]
    return len(own) >= _MOST_OF_A_SHAPE


def _is_of(key: CalibrationKey, plan: Plan) -> bool:
    settings = plan.settings
    numbers = release_numbers(plan.engine_version) or ()
    return (
        key.release == ".".join(str(number) for number in numbers[:2])
        and key.device == plan.gpu_product
        and (key.tensor_parallel_size, key.pipeline_parallel_size)
        == (settings.tensor_parallel_size, settings.pipeline_parallel_size)
        and (key.max_num_seqs, key.max_num_batched_tokens)
        == (settings.max_num_seqs, settings.max_num_batched_tokens)
    )


def _served_profile(plan: Plan, model: ModelStep) -> ModelProfile | None:
    if plan.model_source is None:
        return model.profile
    return next((each.profile for each in model.alternatives if each.source == plan.model_source), None)


def _device(situation: Situation, record: InForce) -> DeviceMemory | None:
    """The GPU as the memory model sees it; None for a slice or a shared one, whose memory others use too."""
    spec, plan = record.spec, record.plan
    inventory = with_requested(situation.world.inventory, spec.hardware.gpus)
    return next(
        (
            group.device
            for group in gpu_groups(inventory, spec)
            if group.exclusive
            and group.gpu.name == plan.gpu_product
            and group.resource_name == plan.gpu_resource
            and dict(group.node_selector).items() <= dict(plan.node_selector).items()
        ),
        None,
    )


def _measured(start: _Start, plan: Plan, profile: ModelProfile, device: DeviceMemory) -> StartUp | None:
    version = engine_version(plan.engine_version)
    if isinstance(version, Refusal):
        return None
    shape = plan.settings.shape(version.default_gpu_memory_utilization)
    predicted = ledger(profile, shape, device, version)
    if not isinstance(predicted, Ledger):
        return None
    facts = start.facts
    record = start_record(
        calibration_key(profile, shape, device, version),
        predicted,
        Terms(facts.activation_bytes, facts.non_torch_bytes, _graph_bytes(facts, predicted)),
        weights_bytes=facts.weights_bytes or 0,
        kv_cache_bytes=facts.kv_cache_bytes or 0,
    )
    return StartUp(start.name, start.started_at, __version__, record) if record.adds_up else None


def _graph_bytes(facts: EngineFacts, predicted: Ledger) -> int | None:
    """Graphs as the release counts them: what it subtracts is its own estimate, made before they are captured."""
    if predicted.cuda_graphs_counted and facts.cuda_graph_estimate_bytes is not None:
        return facts.cuda_graph_estimate_bytes
    if facts.cuda_graph_bytes is None and predicted.cuda_graph_bytes == 0:
        return 0  # An engine that captures no graphs prints no figure of them.
    return facts.cuda_graph_bytes


def _kept(known: tuple[StartUp, ...], found: Iterable[StartUp]) -> tuple[StartUp, ...]:
    """Join old and new ones: the first of each shape are kept, and in all the newest.

    What another release has sized goes: nothing can be learnt from it any more.
    """
    by_name = {each.start: each for each in (*known, *found) if each.sized_by == __version__}
    shapes: Counter[CalibrationKey] = Counter()
    kept = []
    for each in sorted(by_name.values(), key=lambda each: each.order):
        shapes[each.record.key] += 1
        if shapes[each.record.key] <= _MOST_OF_A_SHAPE:
            kept.append(each)
    return tuple(kept[-_MOST_IN_ALL:])
