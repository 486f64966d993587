"""The step times of one replica: what depends on tokens alone, attention, and what the host adds.

Attention reads what is cached and computes what is new; the host plans a step, and launches what no CUDA graph
covers. Pipeline stages take parts of the batch in turn, so that a token passes them all and a stage waits where
there are fewer parts than stages.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property, lru_cache
from math import floor, log2
from typing import Final

from stowage.hardware.gpu import Gpu
from stowage.memory.release.engine_version import EngineVersion, release_numbers
from stowage.memory.shape import EngineShape
from stowage.model.profile import ModelProfile
from stowage.performance.arithmetic import Arithmetic, peak_flops
from stowage.performance.efficiencies import PERFECT, Efficiencies, efficiencies, efficiencies_of
from stowage.performance.exchange import exchange
from stowage.performance.serving import Serving
from stowage.performance.step_parts import StepBatch, StepTime
from stowage.performance.token_costs import TokenCosts
from stowage.performance.work import AttentionWork, RankWork, rank_work

_EXACT_BELOW: Final = 32

_LARGEST_GRAPH: Final = 512
"""Tokens of the largest CUDA graph that vLLM captures by default (compilation: max_cudagraph_capture_size)."""

_UNFUSED: Final = 2
"""Kernels of a layer that is not compiled, for each of one that is: nothing is fused then."""

_INTEGERS_PER_EXPONENTIAL: Final = 4
"""Integer operations in the time of an exponential: 64 and 16 a cycle on a multiprocessor (CUDA programming guide,
throughput of native arithmetic instructions)."""

_DOUBLED: Final = (10, 3)
"""Blackwell Ultra has twice the special function units for attention (NVIDIA)."""

_INTEGER_SHARE: Final = 0.017
"""Integer operations for each 16-bit one where nobody states any: what Hopper has."""

_ASYNC_SINCE: Final = (0, 14, 0)
"""The release that schedules the next step while the GPU works by default (vLLM: async_scheduling)."""


class Pace:
    """Gives the step times of a replica. Made by `pace_of`."""

    def __init__(
        self,
        work: RankWork,
        gpu: Gpu,
        shape: EngineShape,
        ahead: bool,
        same_node: bool,
        table: Efficiencies | None = None,
    ) -> None:
        table = efficiencies() if table is None else table
        self.work, self.gpu, self.shape, self.table, self.schedules_ahead = work, gpu, shape, table, ahead
        stages = shape.pipeline_parallel_size
        tensor_way = exchange(shape.tensor_parallel_size, gpu, table, same_node or stages > 1)
        expert_way = exchange(shape.data_parallel_size, gpu, table, same_node)
        self._stage_way = exchange(2, gpu, table, same_node)
        self._costs = TokenCosts(work, gpu, shape, table, (tensor_way, expert_way))
        self._sums: dict[tuple[float, float], float] = {}
        self._largest_graph = min(_LARGEST_GRAPH, 2 * shape.max_num_seqs)
        self._rate = gpu.memory_bytes_per_second * table.bandwidth
        self._wide = peak_flops(Arithmetic.SIXTEEN_BIT, gpu) * table.attention
        self._exponentials = exponentials_per_second(gpu) * table.attention
        self._lanes = [self._lane(entry) for entry in work.attention]
        self._state_bytes = sum(2.0 * state.count * state.state_bytes for state in work.states)
        self._state_flops = sum(float(state.count * state.token_flops) for state in work.states)

    def step(self, batch: StepBatch) -> StepTime:
        """Give the time of a step, over all pipeline stages that a token passes."""
        stages = self.shape.pipeline_parallel_size
        if stages == 1:
            return self._stage(batch)
        flying = max(1.0, min(float(stages), batch.sequences))
        one = self._stage(batch.divided(flying))
        message = batch.tokens / flying * self.work.hidden_size * self.work.element_bytes
        hand_over = stages * self._stage_way.send_seconds(message)
        waiting = StepTime(bubble=one.total * (stages - flying), hand_over=hand_over)
        return one.scaled(flying).plus(waiting)

    def seconds(self, batch: StepBatch) -> float:
        """Give the total alone."""
        stages = self.shape.pipeline_parallel_size
        if stages == 1:
            return self._stage_seconds(batch)
        flying = max(1.0, min(float(stages), batch.sequences))
        message = batch.tokens / flying * self.work.hidden_size * self.work.element_bytes
        return stages * (self._stage_seconds(batch.divided(flying)) + self._stage_way.send_seconds(message))

    def _stage_seconds(self, batch: StepBatch) -> float:
        tokens, sequences = batch.tokens, batch.sequences
        parts = (batch.prefill_tokens, batch.prefill_pairs, batch.decode_sequences, batch.decode_context)
        return self._with_attention(self._costs.of(tokens, sequences).seconds, (tokens, sequences), *parts)

    def quick(self, prompt: float, pairs: float, prompts: float, decoding: float, context: float) -> float:
        """Give `seconds` for the fields of a StepBatch, in their order, with token counts rounded a little."""
        stages = self.shape.pipeline_parallel_size
        if stages == 1:
            return self._quick_stage(prompt, pairs, prompts, decoding, context)
        flying = max(1.0, min(float(stages), prompts + decoding))
        parts = (prompt / flying, pairs / flying, prompts / flying, decoding / flying, context / flying)
        message = (prompt + decoding) / flying * self.work.hidden_size * self.work.element_bytes
        return stages * (self._quick_stage(*parts) + self._stage_way.send_seconds(message))

    def _quick_stage(
        self, prompt: float, pairs: float, prompts: float, decoding: float, context: float
    ) -> float:
        tokens, sequences = rounded(prompt + decoding), rounded(prompts + decoding)
        gpu = self._sums.get((tokens, sequences))
        if gpu is None:
            gpu = self._sums[tokens, sequences] = self._costs.of(tokens, sequences).seconds
        return self._with_attention(gpu, (tokens, sequences), prompt, pairs, decoding, context)

    def _with_attention(
        self,
        gpu: float,
        counts: tuple[float, float],
        prompt: float,
        pairs: float,
        decoding: float,
        context: float,
    ) -> float:
        """Add what depends on contexts, and the host, to what tokens and sequences alone take."""
        tokens, sequences = counts
        for span, chunked, decode, prefill in self._lanes:
            if decoding:
                gpu += decode * decoding * seen(span, chunked, context / decoding)
            if prompt:
                gpu += prefill * prompt * seen(span, chunked, pairs / prompt)
        gpu += self._state_bytes * sequences / self._rate + self._state_flops * prompt / self._wide
        return self._with_host(max(gpu, self._launch_floor(tokens)), sequences)

    def ideal_seconds(self, batch: StepBatch) -> float:
        """Give what a step would take with every peak reached and nothing lost: the physical floor."""
        return self._perfect.seconds(batch)

    @cached_property
    def _perfect(self) -> Pace:
        return Pace(self.work, self.gpu, self.shape, True, True, PERFECT)

    def _lane(self, entry: AttentionWork) -> tuple[int, bool, float, float]:
        """Give span and seconds for a pair of query and context, of decoding and of prompts."""
        decode = max(entry.token_bytes / self._rate, self._pair_seconds(entry, entry.decode_flops))
        prefill = self._pair_seconds(entry, entry.prefill_flops)
        return entry.span, entry.chunked, entry.count * decode, entry.count * prefill

    def _pair_seconds(self, entry: AttentionWork, flops: int) -> float:
        """Give what a query and a token of context take to compute: products, and the softmax between them."""
        return flops / self._wide + entry.heads / self._exponentials

    def _launch_floor(self, tokens: float) -> float:
        """Give the time that the host needs to launch a step which no CUDA graph covers."""
        kernels = self.work.kernels * self.table.launch_seconds
        if self.shape.enforce_eager:
            return _UNFUSED * kernels
        return 0.0 if tokens <= self._largest_graph else kernels

    def _with_host(self, gpu: float, sequences: float) -> float:
        host = self.table.host_seconds + sequences * self.table.host_request_seconds
        return max(gpu, host) if self.schedules_ahead else gpu + host

    def _stage(self, batch: StepBatch) -> StepTime:
        costs = self._costs.of(batch.tokens, batch.sequences)
        read, computed, flops, moved = self._decode_attention(batch)
        prompt, prompt_flops = self._prompt_attention(batch)
        gpu = costs.seconds + read + prompt
        idle = self._with_host(max(gpu, self._launch_floor(batch.tokens)), batch.sequences) - gpu
        return StepTime(
            weights=costs.weights,
            attention=prompt,
            kv_read=read,
            moe=costs.moe,
            routing=costs.routing,
            all_reduce=costs.all_reduce,
            sampling=costs.sampling,
            overhead=costs.launch + idle,
            flops=costs.flops + flops + prompt_flops,
            moved_bytes=costs.moved_bytes + moved,
            compute_seconds=costs.compute_seconds + computed + prompt,
        )

    def _decode_attention(self, batch: StepBatch) -> tuple[float, float, float, float]:
        """Give seconds, those of them that the matrix units decide, operations and bytes."""
        moved = self._state_bytes * batch.sequences
        seconds, compute, flops = moved / self._rate, 0.0, 0.0
        if batch.decode_sequences <= 0:
            return seconds, compute, flops, moved
        mean = batch.decode_context / batch.decode_sequences
        for entry in self.work.attention:
            pairs = entry.count * batch.decode_sequences * seen(entry.span, entry.chunked, mean)
            memory = pairs * entry.token_bytes / self._rate
            matrix = pairs * self._pair_seconds(entry, entry.decode_flops)
            seconds += max(memory, matrix)
            compute += matrix if matrix > memory else 0.0
            flops += pairs * entry.decode_flops
            moved += pairs * entry.token_bytes
        return seconds, compute, flops, moved

    def _prompt_attention(self, batch: StepBatch) -> tuple[float, float]:
        """Give seconds and operations."""
        if batch.prefill_tokens <= 0:
            return 0.0, 0.0
        mean, flops = batch.prefill_pairs / batch.prefill_tokens, self._state_flops * batch.prefill_tokens
        seconds = flops / self._wide
        for entry in self.work.attention:
            looked_at = entry.count * batch.prefill_tokens * seen(entry.span, entry.chunked, mean)
            seconds += looked_at * self._pair_seconds(entry, entry.prefill_flops)
            flops += looked_at * entry.prefill_flops
        return seconds, flops


def seen(span: int, chunked: bool, context: float) -> float:
    """Give how much of a context a layer looks at: all without a span, half of a chunk on average."""
    if span == 0:
        return context
    return min(context, span / 2 if chunked and context > span else float(span))


def exponentials_per_second(gpu: Gpu) -> float:
    """Give what the special function units of a GPU do, which softmax needs; they grew less than matrix units."""
    integer_ops = gpu.integer_ops or _INTEGER_SHARE * (gpu.bf16_flops or gpu.fp16_flops)
    return integer_ops / _INTEGERS_PER_EXPONENTIAL * (2 if gpu.compute_capability == _DOUBLED else 1)


def rounded(count: float) -> float:
    """Round a count to about two per cent, so that near ones share what was worked out."""
    if count < _EXACT_BELOW:
        return round(count, 2)
    grid = 2.0 ** (floor(log2(count)) - 5)
    return round(count / grid) * grid


def pace_of(serving: Serving) -> Pace:
    """Give what knows the step times of a replica; made once and kept."""
    ahead = serving.schedules_ahead
    if ahead is None:
        ahead = (release_numbers(serving.version.version) or (0, 0, 0)) >= _ASYNC_SINCE
    return _pace(serving.profile, serving.shape, serving.gpu, serving.version, (ahead, serving.same_node))


@lru_cache(maxsize=4096)
def _pace(
    profile: ModelProfile, shape: EngineShape, gpu: Gpu, version: EngineVersion, modes: tuple[bool, bool]
) -> Pace:
    """Take away what step times do not depend on, so that shapes with other limits share what was worked out."""
    plain = replace(
        shape,
        max_num_seqs=min(shape.max_num_seqs, _LARGEST_GRAPH // 2),
        max_num_batched_tokens=_LARGEST_GRAPH,
        max_model_len=_LARGEST_GRAPH,
        gpu_memory_utilization=1.0,
        kv_cache_memory_bytes=None,
    )
    return _shared_pace(profile, plain, gpu, version, modes)


@lru_cache(maxsize=1024)
def _shared_pace(
    profile: ModelProfile, shape: EngineShape, gpu: Gpu, version: EngineVersion, modes: tuple[bool, bool]
) -> Pace:
    table = efficiencies_of(gpu.name, gpu.vendor, version.engine, version.version)
    return Pace(rank_work(profile, shape, gpu, version), gpu, shape, *modes, table)
