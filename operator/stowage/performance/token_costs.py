"""Parts of a step that depend on how many tokens it has and on nothing else: products, vectors, exchanges, sampling.

A product takes the longer of its memory and its matrix time, blended where the two are near. Weights in a format
that the matrix units do not take are widened first, by ordinary units, which a tile of rows does anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import expm1, log1p
from typing import Final

from stowage.hardware.gpu import Gpu
from stowage.memory.shape import EngineShape
from stowage.performance.arithmetic import Arithmetic, peak_flops
from stowage.performance.efficiencies import Efficiencies
from stowage.performance.exchange import Exchange
from stowage.performance.work import ExpertWork, LinearWork, RankWork

_BLEND: Final = 4
"""How sharply a product turns from memory to matrix time: the 4-norm is 19 % above either where they are equal."""

_TILE: Final = 64
"""Rows of a tile of the matrix units: one wgmma instruction of Hopper, and what others use at large sizes."""

_HALF_TILE: Final = 32
"""Rows that are computed in vain on average, where rows fill tiles."""

_FEWEST_IN_VAIN: Final = 8
"""The same for an expert with few rows: kernels then take tiles of 16, the least that an mma instruction has."""

_SAMPLING_PASSES: Final = 4
"""Times that float32 logits are read or written to choose a token: cast, penalties and temperature, softmax."""

_LOGIT_BYTES: Final = 4

_NARROW_BYTES: Final = 1
"""Bytes of an element that a kernel of its own has quantised; formats of four bits take less."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds by part, named as in StepTime; `launch` is what kernels take besides their work."""

    weights: float
    moe: float
    routing: float
    all_reduce: float
    sampling: float
    launch: float
    flops: float
    moved_bytes: float
    compute_seconds: float

    @property
    def seconds(self) -> float:
        """The parts together."""
        parts = self.weights + self.moe + self.routing + self.all_reduce
        return parts + self.sampling + self.launch


@dataclass(frozen=True, slots=True)
class _Sum:
    """Seconds, the part of them that the matrix units decide, operations and bytes."""

    seconds: float = 0.0
    compute: float = 0.0
    flops: float = 0.0
    moved: float = 0.0


class TokenCosts:
    """Gives and remembers the costs of a rank by token count."""

    def __init__(
        self,
        work: RankWork,
        gpu: Gpu,
        shape: EngineShape,
        table: Efficiencies,
        ways: tuple[Exchange, Exchange],
    ) -> None:
        self._work, self._gpu, self._table = work, gpu, table
        self._ranks = shape.data_parallel_size
        self._tensor_way, self._expert_way = ways
        self._rate = gpu.memory_bytes_per_second * table.bandwidth
        self._vector_bytes = vector_bytes(work)
        self._known: dict[tuple[float, float], Costs] = {}

    def of(self, tokens: float, sequences: float) -> Costs:
        """Give the costs of a step of so many tokens, `sequences` of which make a new one."""
        found = self._known.get((tokens, sequences))
        if found is None:
            found = self._known[tokens, sequences] = self._counted(tokens, sequences)
        return found

    def _counted(self, tokens: float, sequences: float) -> Costs:
        work = self._work
        dense, head = self._products(work.linears, tokens), self._products((work.head,), sequences)
        experts = self._experts(tokens)
        passed = tokens * self._vector_bytes
        logits = sequences * work.vocab_size * _LOGIT_BYTES * _SAMPLING_PASSES
        return Costs(
            weights=dense.seconds + head.seconds + passed / self._rate,
            moe=experts.seconds,
            routing=self._routing(tokens),
            all_reduce=self._reduced(tokens, sequences),
            sampling=logits / self._rate,
            launch=work.kernels * self._table.kernel_seconds,
            flops=dense.flops + head.flops + experts.flops,
            moved_bytes=dense.moved + head.moved + experts.moved + passed + logits,
            compute_seconds=dense.compute + head.compute + experts.compute,
        )

    def _reduced(self, tokens: float, sequences: float) -> float:
        """Give the time of all-reduces behind layers, and of gathering the logits."""
        work, way = self._work, self._tensor_way
        message = tokens * work.hidden_size * work.element_bytes
        logits = sequences * work.vocab_size * work.element_bytes
        return work.exchanges * way.all_reduce_seconds(message) + way.gather_seconds(logits)

    def _routing(self, tokens: float) -> float:
        """Give the time in which data-parallel ranks hand each other tokens for experts, and take them back."""
        if self._ranks == 1:
            return 0.0
        layers = sum(entry.count for entry in self._work.experts)
        together = tokens * self._ranks * self._work.hidden_size * self._work.element_bytes
        return 2 * layers * self._expert_way.gather_seconds(together)

    def _products(self, linears: tuple[LinearWork, ...], tokens: float) -> _Sum:
        if tokens <= 0:
            return _Sum()
        seconds = compute = flops = moved = 0.0
        for entry in linears:
            work = 2.0 * entry.rows * entry.columns
            widening = self._widening(entry.unpacked, tokens)
            took, matrix = self._product(
                work * (tokens + _HALF_TILE), entry.weight_bytes, entry.arithmetic, widening
            )
            seconds += entry.count * took
            compute += entry.count * matrix
            flops += entry.count * work * tokens
            moved += entry.count * entry.weight_bytes
        return _Sum(seconds, compute, flops, moved)

    def _experts(self, tokens: float) -> _Sum:
        if tokens <= 0:
            return _Sum()
        seconds = compute = flops = moved = 0.0
        together = tokens * self._ranks
        for entry in self._work.experts:
            touched = entry.held * touched_share(entry, together)
            pairs = together * entry.chosen * (entry.held / entry.total if entry.spread else 1.0)
            rows = pairs / touched
            padded = touched * (rows + min(float(_HALF_TILE), _FEWEST_IN_VAIN + rows / 2))
            widening = self._widening(entry.unpacked, rows) * touched
            work = 2.0 * entry.elements * padded / self._table.grouped
            took, matrix = self._product(work, touched * entry.weight_bytes, entry.arithmetic, widening)
            seconds += entry.count * took
            compute += entry.count * matrix
            flops += entry.count * 2.0 * entry.elements * pairs
            moved += entry.count * touched * entry.weight_bytes
        return _Sum(seconds, compute, flops, moved)

    def _widening(self, elements: int, rows: float) -> float:
        if elements == 0 or self._gpu.integer_ops == 0:
            return 0.0
        return elements * max(1.0, rows / _TILE) * self._table.unpack_operations / self._gpu.integer_ops

    def _product(
        self, flops: float, weight_bytes: float, arithmetic: Arithmetic, widening: float
    ) -> tuple[float, float]:
        """Give the seconds of a product, and how many of them the matrix units decide."""
        computing = flops / (peak_flops(arithmetic, self._gpu) * self._table.matrix)
        matrix = (computing + widening) ** _BLEND
        memory = (weight_bytes / self._rate) ** _BLEND
        took = (matrix + memory) ** (1 / _BLEND)
        return took, took * matrix / (matrix + memory)


def vector_bytes(work: RankWork) -> float:
    """Give the bytes that a token is read and written as, between and inside of layers."""
    inside = float(sum(linear.count * (linear.rows + linear.columns) for linear in work.linears))
    narrowed = float(sum(linear.count * linear.columns for linear in work.linears if linear.quantised))
    for entry in work.experts:
        share = entry.held / entry.total if entry.spread else 1.0
        inside += entry.count * entry.chosen * share * (2 * entry.inputs + 3 * entry.inner)
        narrowed += entry.quantised * entry.count * (entry.inputs + entry.chosen * share * entry.inner)
    return 2.0 * inside * work.element_bytes + narrowed * (work.element_bytes + _NARROW_BYTES)


def touched_share(entry: ExpertWork, tokens: float) -> float:
    """Give the share of experts that a batch touches when each token chooses without preference."""
    return -expm1(tokens * log1p(-entry.chosen / entry.total)) if entry.chosen < entry.total else 1.0
