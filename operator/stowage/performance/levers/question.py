"""The ground that every lever stands on: the replica as planned, what it is asked, and what its time goes into.

All levers are compared in a closed loop with the same requests in flight and by the closed form, the replica itself
included, so that a difference is the lever's and not the method's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil

from stowage.api.refusal import Refusal
from stowage.hardware.gpu import Gpu
from stowage.memory.budget import ledger
from stowage.memory.calibration import UNCALIBRATED, Calibration
from stowage.memory.device import DeviceMemory
from stowage.memory.ledger import Ledger
from stowage.memory.shape import EngineShape
from stowage.model.profile import ModelProfile
from stowage.performance.forecast import Forecast
from stowage.performance.roofline import Roofline
from stowage.performance.serving import Serving
from stowage.performance.step import StepBatch, StepTime, step_time
from stowage.performance.traffic import Traffic


@dataclass(frozen=True)
class LeverQuestion:
    """What is asked about one replica.

    `total_memory_bytes` is what CUDA sees on its GPUs. `hourly` gives the cost of a GPU for an hour (1 where costs
    are in GPU-hours). `others` are the GPUs that might be used instead. `kv_factor` is how much smaller a
    compressed KV cache is taken to be. `keeps_kv_bytes`: pinned KV bytes are the user's and stay; those that the plan
    pinned, at the lower end of their band, are found anew for every change. `calibration` is what measured start-ups
    taught the plan's own ledger.
    """

    serving: Serving
    traffic: Traffic
    total_memory_bytes: int
    hourly: Callable[[Gpu], float] = lambda _: 1.0
    others: tuple[Gpu, ...] = ()
    kv_factor: int = 4
    keeps_kv_bytes: bool = False
    calibration: Calibration = UNCALIBRATED

    @cached_property
    def load(self) -> Traffic:
        """The traffic as a closed loop: what is in flight under the asked rate goes on being in flight."""
        if self.traffic.concurrency is not None:
            return self.traffic
        found = Roofline(fast=True).forecast(self.serving, self.traffic)
        flying = 1 if isinstance(found, Refusal) else max(1, ceil(found.concurrency))
        return replace(self.traffic, concurrency=flying, requests_per_second=None)

    @cached_property
    def answer(self) -> Forecast | Refusal:
        """The forecast of the replica as it is, or why there is none: then there are no levers."""
        return Roofline(fast=True).forecast(self.serving, self.load)

    @property
    def base(self) -> Forecast:
        """The forecast of the replica as it is. Raises ValueError where there is none."""
        if isinstance(self.answer, Refusal):
            raise ValueError(self.answer.sentence)
        return self.answer

    @cached_property
    def decode_step(self) -> StepTime:
        """The mean step in which nothing but decoding happens."""
        return step_time(self.serving, self.decode_batch)

    @property
    def decode_batch(self) -> StepBatch:
        """The requests that decode together on one data-parallel rank."""
        number = max(1.0, self.base.decode_batch)
        return StepBatch(decode_sequences=number, decode_context=number * self.load.mean_context_tokens)

    def share_of_time(self, part: str) -> float:
        """Give the share of all GPU time that decoding spends on one part of its step."""
        spent: float = getattr(self.decode_step, part)
        return (1 - self.base.prefill_share) * spent / self.decode_step.total

    def refit(
        self,
        *,
        profile: ModelProfile | None = None,
        shape: EngineShape | None = None,
        gpu: Gpu | None = None,
    ) -> Serving | Refusal:
        """Give the replica with other parts, and the KV cache that the memory ledger then finds room for."""
        now = self.serving
        wanted = replace(now, profile=profile or now.profile, shape=shape or now.shape, gpu=gpu or now.gpu)
        total = self.total_memory_bytes if gpu is None else gpu.cuda_total_bytes
        device = DeviceMemory.of_gpu(wanted.gpu, total)
        if wanted.shape.kv_cache_memory_bytes is None or self.keeps_kv_bytes:
            return self._filled(wanted, device)
        free = self._ledger(replace(wanted, shape=replace(wanted.shape, kv_cache_memory_bytes=None)), device)
        if isinstance(free, Refusal):
            return free
        pinned = max(1, int(free.kv_cache_band.low))
        return self._filled(
            replace(wanted, shape=replace(wanted.shape, kv_cache_memory_bytes=pinned)), device
        )

    def _filled(self, serving: Serving, device: DeviceMemory) -> Serving | Refusal:
        """Give the replica with the KV cache that its settings leave on a device."""
        found = self._ledger(serving, device)
        return found if isinstance(found, Refusal) else replace(serving, kv_tokens=found.kv_tokens)

    def _ledger(self, serving: Serving, device: DeviceMemory) -> Ledger | Refusal:
        found = ledger(serving.profile, serving.shape, device, serving.version, self.calibration)
        if isinstance(found, Refusal):
            return found
        return found if found.refusal is None else found.refusal

    def requests_at_once(self, serving: Serving) -> float:
        """Give how many requests of this traffic a replica runs at once, whatever is asked."""
        by_kv = max(1.0, serving.kv_tokens / max(1.0, self.load.mean_context_tokens))
        return serving.shape.data_parallel_size * min(by_kv, float(serving.shape.max_num_seqs))


def in_flight(question: LeverQuestion) -> str:
    """Say how many requests are in flight, as in `64 requests are in flight`."""
    number = question.load.concurrency or 1
    return "1 request is in flight" if number == 1 else f"{number:,} requests are in flight"
