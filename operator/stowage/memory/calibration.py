"""What measured start-ups teach about the terms that can only be estimated.

From records to corrections, as a pure function: each record holds what was predicted for one start and what the
engine then printed. A correction moves an estimate by the median of what was off and narrows its band; it holds
for the same engine release, GPU, architecture and shape, and for what does not depend on the shape also for its
neighbours. It must never learn from a log whose parts do not add up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Final

from stowage.memory.device import DeviceMemory
from stowage.memory.estimates import Estimate
from stowage.memory.ledger import Ledger
from stowage.memory.release.engine_version import EngineVersion, release_numbers
from stowage.memory.shape import EngineShape
from stowage.model.profile import ModelProfile

_TOLERANCE_BYTES: Final = int(0.1 * 2**30)
"""How far the logged parts may be from the budget: the log prints hundredths of a GiB, four of them."""

_SINGLE_BAND_BYTES: Final = int(0.15 * 2**30)
"""Half width after one record: two starts of the same server differ by that much (vllm-project/vllm logs)."""

_MOST_BYTES: Final = 2**45
"""More than any device has; a record that says more, or less than nothing, was not measured."""

_TERMS: Final = ("activation", "non_torch", "cuda_graph")
_FLOOR_BYTES: Final = int(0.05 * 2**30)
_OUTLIER_DEVIATIONS: Final = 3.0


@dataclass(frozen=True, slots=True)
class CalibrationKey:
    """What a correction holds for; the release as major.minor. A field of None holds for every value."""

    release: str
    device: str
    tensor_parallel_size: int
    pipeline_parallel_size: int
    architecture: str | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None

    def wider(self) -> CalibrationKey:
        """Give the key for all architectures and batch limits."""
        return replace(self, architecture=None, max_num_seqs=None, max_num_batched_tokens=None)


def calibration_key(
    profile: ModelProfile, shape: EngineShape, device: DeviceMemory, version: EngineVersion
) -> CalibrationKey:
    """Give the key of a start, and of a question that is to be answered with what was learnt."""
    release = release_numbers(version.version)
    return CalibrationKey(
        release=f"{release[0]}.{release[1]}" if release else version.version,
        device=device.name,
        tensor_parallel_size=shape.tensor_parallel_size,
        pipeline_parallel_size=shape.pipeline_parallel_size,
        architecture=profile.architecture,
        max_num_seqs=shape.max_num_seqs,
        max_num_batched_tokens=shape.max_num_batched_tokens,
    )


@dataclass(frozen=True, slots=True)
class Terms:
    """The three estimated terms of a rank in bytes; None where a log does not print one."""

    activation_bytes: int | None
    non_torch_bytes: int | None
    cuda_graph_bytes: int | None


@dataclass(frozen=True, slots=True)
class StartRecord:
    """One start: predicted terms, measured terms, and the parts that must add up to the budget."""

    key: CalibrationKey
    predicted: Terms
    measured: Terms
    budget_bytes: int
    weights_bytes: int
    kv_cache_bytes: int
    cuda_graphs_counted: bool

    @property
    def adds_up(self) -> bool:
        """Whether the logged parts are amounts and sum to the budget; a log that lacks a part cannot be checked."""
        if not all(0 <= each <= _MOST_BYTES for each in self._amounts):
            return False
        activation, non_torch = self.measured.activation_bytes, self.measured.non_torch_bytes
        graphs = self.measured.cuda_graph_bytes if self.cuda_graphs_counted else 0
        if activation is None or non_torch is None or graphs is None:
            return False
        total = self.weights_bytes + self.kv_cache_bytes + activation + non_torch + graphs
        return abs(total - self.budget_bytes) <= _TOLERANCE_BYTES

    @property
    def _amounts(self) -> tuple[int, ...]:
        """Every amount of the record that is known."""
        terms = (
            getattr(each, f"{term}_bytes") for each in (self.predicted, self.measured) for term in _TERMS
        )
        parts = (self.budget_bytes, self.weights_bytes, self.kv_cache_bytes)
        return (*parts, *(each for each in terms if each is not None))


def start_record(
    key: CalibrationKey, predicted: Ledger, measured: Terms, *, weights_bytes: int, kv_cache_bytes: int
) -> StartRecord:
    """Make the record of one start from the ledger that was planned with and what the engine printed.

    Buffers that stay are no term of their own in the log: they are part of what a release calls activations, or
    with "consumed memory" of what is neither weights nor activations; the predicted terms are taken alike.
    """
    apart = predicted.persistent_bytes
    activation, non_torch = predicted.activation_bytes, predicted.non_torch_bytes
    if predicted.buffers_are_consumed:
        non_torch += apart
    else:
        activation += apart
    return StartRecord(
        key,
        Terms(activation, non_torch, predicted.cuda_graph_bytes),
        measured,
        budget_bytes=predicted.budget_bytes,
        weights_bytes=weights_bytes,
        kv_cache_bytes=kv_cache_bytes,
        cuda_graphs_counted=predicted.cuda_graphs_counted,
    )


@dataclass(frozen=True, slots=True)
class Correction:
    """How far an estimate was off, in bytes: the median, how far records spread around it, and how many."""

    delta_bytes: float
    half_width_bytes: float
    records: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """Corrections by term and key."""

    corrections: Mapping[tuple[str, CalibrationKey], Correction]

    def starts(self, key: CalibrationKey) -> int:
        """Count the start-ups behind what is corrected for exactly this key; 0 where nothing is."""
        found = (self.corrections.get((term, key)) for term in _TERMS)
        return max((each.records for each in found if each is not None), default=0)

    def adjust(self, term: str, key: CalibrationKey, estimate: Estimate) -> Estimate:
        """Correct an estimate of a term ("activation", "non_torch" or "cuda_graph").

        The exact key wins; growth outside the allocator, which depends on neither model nor batch, is also
        taken from other models on the same GPUs. A correction never makes an estimate negative, nor less sure
        than it was.
        """
        found = self.corrections.get((term, key))
        if found is None and term == "non_torch":
            found = self.corrections.get((term, key.wider()))
        if found is None:
            return estimate
        value = max(0.0, estimate.value + found.delta_bytes)
        before = max(estimate.value - estimate.low, estimate.high - estimate.value)
        half = min(found.half_width_bytes, before)
        return Estimate(value, max(0.0, value - half), value + half)


UNCALIBRATED: Final = Calibration({})
"""No measurement has been seen."""


def calibrate(records: Iterable[StartRecord]) -> Calibration:
    """Work out corrections from all records that add up; their order does not matter."""
    deltas: dict[tuple[str, CalibrationKey], list[float]] = defaultdict(list)
    for record in records:
        if not record.adds_up:
            continue
        for term, off in _deltas(record):
            deltas[term, record.key].append(off)
            if term == "non_torch":
                deltas[term, record.key.wider()].append(off)
    return Calibration({key: _correction(values) for key, values in deltas.items()})


def _deltas(record: StartRecord) -> Iterable[tuple[str, float]]:
    for term in _TERMS:
        measured = getattr(record.measured, f"{term}_bytes")
        predicted = getattr(record.predicted, f"{term}_bytes")
        if measured is not None and predicted is not None:
            yield term, float(measured - predicted)


def _correction(values: list[float]) -> Correction:
    kept = _without_outliers(values)
    middle = median(kept)
    if len(kept) == 1:
        return Correction(middle, _SINGLE_BAND_BYTES, 1)
    spread = max(abs(value - middle) for value in kept)
    return Correction(middle, max(spread, _FLOOR_BYTES), len(kept))


def _without_outliers(values: list[float]) -> list[float]:
    """Leave out what lies further from the median than three times the usual distance, given enough values."""
    if len(values) < 4:
        return values
    middle = median(values)
    usual = max(median(abs(value - middle) for value in values), _FLOOR_BYTES)
    return [value for value in values if abs(value - middle) <= _OUTLIER_DEVIATIONS * usual]
