"""Whether a model fits on one shape, and with which engine settings.

Batch limits are solved, not defaulted: both take memory from the KV cache, piecewise linearly. The budget of tokens
per step is the largest useful one that still leaves the target its cache; the number of sequences is then where as
many requests may run as the cache holds. Neither is ever below what the user states, nor changed where the user pins
it. Utilisation, context and KV bytes are taken as pinned or as the engine's defaults. All memory arithmetic is the
memory model's; this module only asks it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

from stowage.api.conditions import Reason
from stowage.api.quantity import parse_quantity_bytes
from stowage.api.refusal import Refusal
from stowage.api.v1alpha1 import LLMDeploymentSpec
from stowage.memory.budget import ledger
from stowage.memory.calibration import UNCALIBRATED, Calibration
from stowage.memory.device import DeviceMemory
from stowage.memory.layout import RankLayout
from stowage.memory.ledger import Ledger
from stowage.memory.quantized.on_load import quantized_on_load
from stowage.memory.release.batch_limits import default_batch_limits
from stowage.memory.release.engine_version import EngineVersion, engine_on
from stowage.memory.setting import Setting
from stowage.memory.weights import rank_weights
from stowage.model.profile import ModelProfile
from stowage.planning.search.solve import largest
from stowage.planning.search.targets import Target
from stowage.planning.settings import EngineSettings

FITS: Final = "Fits"
DOES_NOT_FIT: Final = "DoesNotFit"
# Shares to try where the engine's default asks for more than is sure to be free when it starts.
_LOWER_UTILIZATIONS: Final = (0.90, 0.88, 0.85)
_GIB: Final = 2**30
# Share of the card below which a KV cache counts as small.
_SMALL_CACHE: Final = 0.1
_MIB: Final = 2**20
_COARSE_STEP: Final = 1_024
_FINE_STEP: Final = 256
_TOKEN_STEP: Final = 256
LEAST_BATCHED_TOKENS: Final = 512
"""Fewest tokens per step that are tried; fewer are only ever pinned."""

_SEQUENCE_STEP: Final = 8
MOST_SEQUENCES: Final = 1_024
"""The engine's largest default of max_num_seqs; more is only ever pinned."""


@dataclass(frozen=True, slots=True)
class Caps:
    """Upper limits that are not about memory: what objectives leave, or what is of use to the traffic."""

    seqs: int = MOST_SEQUENCES
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Fit:
    """Settings that hold the target, their ledger, and the requests of `request_tokens` that run at once.

    `defaults` are the engine's own batch limits for this device. Concurrency is that of the whole replica.
    """

    settings: EngineSettings
    ledger: Ledger
    concurrency: int
    request_tokens: int
    defaults: tuple[int, int] = (0, 0)

    @property
    def is_tight(self) -> bool:
        """Whether it fits only if the estimated parts do not turn out at the upper end of their bands."""
        return self.ledger.verdict != FITS


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why no settings hold the target, with the most that the shape could hold where that is known."""

    refusal: Refusal
    largest_max_model_len: int | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class _Question:
    """What is varied and what is not: the device, the fixed settings, the target of one rank, and the caps."""

    device: DeviceMemory
    base: EngineSettings
    target: Target
    caps: Caps

    def settings(self, seqs: int, tokens: int) -> EngineSettings:
        """Give the settings with these batch limits."""
        return replace(
            self.base,
            max_model_len=self.target.context_tokens,
            max_num_seqs=min(seqs, tokens),
            max_num_batched_tokens=tokens,
        )


@dataclass(frozen=True, slots=True)
class Fitter:
    """Finds settings for one model and one wish; remembers ledgers, since targets overlap."""

    profile: ModelProfile
    spec: LLMDeploymentSpec
    version: EngineVersion
    calibration: Calibration = UNCALIBRATED
    _known: dict[tuple[EngineSettings, DeviceMemory], Ledger | Refusal] = field(
        default_factory=dict, compare=False, repr=False
    )

    def fit(
        self,
        device: DeviceMemory,
        base: EngineSettings,
        target: Target,
        caps: Caps = Caps(),
    ) -> Fit | Misfit:
        """Find settings that hold the target, with the best batch limits that leave no doubt.

        `base` carries what is fixed: parallel sizes, dtypes, utilisation, pinned KV bytes. Utilisation is lowered
        only where it is not pinned and its default leaves a doubt. Where every choice is tight, the most frugal
        one is taken.
        """
        return self._sure(
            _Question(device, base, target.per_rank(base.data_parallel_size), caps), self._fit_at
        )

    def frugal(self, device: DeviceMemory, base: EngineSettings, target: Target) -> Fit | Misfit:
        """Tell whether the target is held at all, with the batch limits that take the least memory."""
        question = _Question(device, base, target.per_rank(base.data_parallel_size), Caps())
        return self._sure(question, self._frugal)

    def longer(self, device: DeviceMemory, fit: Fit, target: Target, limit: int) -> Fit:
        """Raise max_model_len to the longest round length that leaves no doubt, the model's limit at best."""
        if fit.is_tight or target.context_pinned:
            return fit
        low, high = fit.settings.max_model_len, limit
        best = self._at_length(device, fit, target, high)
        if best is not None:
            return best
        step = _COARSE_STEP if low >= 2 * _COARSE_STEP else _FINE_STEP
        bottom, top = low // step, high // step
        found = fit
        while bottom < top:
            middle = (bottom + top + 1) // 2
            attempt = self._at_length(device, fit, target, middle * step)
            if attempt is None:
                top = middle - 1
            else:
                bottom, found = middle, attempt
        return found

    def certain(self, device: DeviceMemory, fit: Fit, target: Target) -> Fit:
        """Pin the bytes of a KV cache that is a small part of the card, at the lower end of their band.

        What is small comes out as the difference of large amounts, so that their uncertainty is a large part of it:
        pinned, the tokens are what the plan says. The fit stays as it is where a pin would not hold the target.
        """
        settings, found = fit.settings, fit.ledger
        small = found.kv_cache_bytes < _SMALL_CACHE * found.total_bytes
        if found.kv_cache_pinned or not small or fit.is_tight or not self.version.pins_kv_bytes:
            return fit
        pinned = replace(settings, kv_cache_memory_bytes=int(found.kv_cache_band.low) // _MIB * _MIB)
        attempt = self.check(device, pinned, target.per_rank(settings.data_parallel_size))
        return fit if isinstance(attempt, Misfit) or attempt.is_tight else attempt

    def check(self, device: DeviceMemory, settings: EngineSettings, target: Target) -> Fit | Misfit:
        """Tell whether exactly these settings hold the target of one rank."""
        result = self.ledger(device, settings)
        if isinstance(result, Refusal):
            return Misfit(result)
        if result.verdict == DOES_NOT_FIT:
            return Misfit(_cause(result), result.largest_max_model_len)
        room = self.requests_at_once(device, settings, result, target.request_tokens)
        served, ranks = min(room, settings.max_num_seqs), settings.data_parallel_size
        if served < target.concurrency:
            return Misfit(_too_few(room, settings, target), result.largest_max_model_len, served * ranks)
        if result.kv_tokens < target.kv_tokens:
            return Misfit(_too_little_cache(result, target), result.largest_max_model_len, room * ranks)
        defaults = default_batch_limits(device, self.version)
        return Fit(settings, result, served * ranks, target.request_tokens, defaults)

    def ledger(self, device: DeviceMemory, settings: EngineSettings) -> Ledger | Refusal:
        """Compute the ledger of these settings, or recall it."""
        key = (settings, device)
        if key not in self._known:
            shape = settings.shape(self.version.default_gpu_memory_utilization)
            self._known[key] = ledger(self.profile, shape, device, self.version, self.calibration)
        return self._known[key]

    def requests_at_once(
        self, device: DeviceMemory, settings: EngineSettings, whole: Ledger, request_tokens: int
    ) -> int:
        """Count the requests of that length that one rank's blocks hold; one block stays unused by the engine."""
        if request_tokens >= settings.max_model_len:
            return int(whole.max_concurrency)
        blocks = self._blocks_per_request(device, settings, request_tokens)
        return max(int(whole.max_concurrency), (whole.num_gpu_blocks - 1) // blocks)

    def _blocks_per_request(self, device: DeviceMemory, settings: EngineSettings, request_tokens: int) -> int:
        """Ask the block pools, which know windows and states, what a request takes on the stage that keeps most."""
        version = self.version if device.is_cpu else engine_on(self.version, device.compute_capability)
        shape = settings.shape(version.default_gpu_memory_utilization)
        setting = Setting(self._loaded(settings.quantization), shape, device, version)
        stages = range(settings.pipeline_parallel_size)
        return max(1, *(setting.kv_pool(stage).blocks_per_request(request_tokens) for stage in stages))

    def _loaded(self, quantization: str | None) -> ModelProfile:
        loaded = quantized_on_load(self.profile, quantization, self.version)
        return self.profile if isinstance(loaded, Refusal) else loaded

    def _hopeless(self, device: DeviceMemory, base: EngineSettings) -> Misfit | None:
        """Rule out a shape whose weights alone, divided by all its GPUs, are more than a GPU has: no ledger needed."""
        weights = _whole_weights(self._loaded(base.quantization), base.dtype) // base.world_size
        if weights <= device.total_bytes or device.is_cpu:
            return None
        message = (
            f"Weights alone take at least {weights / _GIB:.1f} GiB on each GPU, and {device.name} has "
            f"{device.total_bytes / _GIB:.1f} GiB: {(weights - device.total_bytes) / _GIB:.1f} GiB are missing."
        )
        return Misfit(
            Refusal(Reason.INSUFFICIENT_MEMORY, message, "Use more GPUs per replica, or larger ones.")
        )

    def _at_length(self, device: DeviceMemory, fit: Fit, target: Target, length: int) -> Fit | None:
        if length <= fit.settings.max_model_len:
            return fit if length == fit.settings.max_model_len else None
        rank = target.per_rank(fit.settings.data_parallel_size)
        attempt = self.check(device, replace(fit.settings, max_model_len=length), rank)
        return None if isinstance(attempt, Misfit) or attempt.is_tight else attempt

    def _sure(self, question: _Question, find: Callable[[_Question], Fit | Misfit]) -> Fit | Misfit:
        """Lower utilisation, where it is not pinned, until no doubt is left; else answer for the engine's default."""
        found = find(question)
        if self.spec.engine.gpu_memory_utilization is not None or not _may_lower(found):
            return found
        for share in _LOWER_UTILIZATIONS:
            if share < (question.base.gpu_memory_utilization or 0.0):
                lower = replace(question, base=replace(question.base, gpu_memory_utilization=share))
                attempt = find(lower)
                if isinstance(attempt, Fit) and not attempt.is_tight:
                    return attempt
        return found

    def _fit_at(self, question: _Question) -> Fit | Misfit:
        frugal = self._frugal(question)
        if isinstance(frugal, Misfit) or frugal.is_tight:
            return frugal
        tokens = self._most_tokens(question, frugal)
        seqs = self._most_seqs(question, frugal, tokens)
        found = self.check(question.device, question.settings(seqs, tokens), question.target)
        return found if isinstance(found, Fit) and not found.is_tight else frugal

    def _frugal(self, question: _Question) -> Fit | Misfit:
        hopeless = self._hopeless(question.device, question.base)
        if hopeless is not None:
            return hopeless
        engine, target = self.spec.engine, question.target
        seqs = engine.max_num_seqs or min(
            target.batch_floor, engine.max_num_batched_tokens or MOST_SEQUENCES**2
        )
        tokens = engine.max_num_batched_tokens or max(seqs, LEAST_BATCHED_TOKENS)
        return self.check(question.device, question.settings(seqs, tokens), target)

    def _most_tokens(self, question: _Question, frugal: Fit) -> int:
        """Solve max_num_batched_tokens: the most of use that leaves the target its cache and sequences to fill it."""
        least = frugal.settings.max_num_batched_tokens
        if self.spec.engine.max_num_batched_tokens is not None:
            return least
        cap = max(least, question.caps.tokens or default_batch_limits(question.device, self.version)[1])
        seqs = self._filling_seqs(question, frugal)

        def slack(steps: int) -> float:
            return self._slack(question, question.settings(seqs, least + steps * _TOKEN_STEP))

        if slack(-(-(cap - least) // _TOKEN_STEP)) >= 0:
            return cap
        return least + _TOKEN_STEP * largest(slack, 0, (cap - least) // _TOKEN_STEP)

    def _filling_seqs(self, question: _Question, frugal: Fit) -> int:
        """Give the sequences that fill the cache which is aimed at, or as many as the fewest tokens leave room for."""
        target, settings = question.target, frugal.settings
        least = settings.max_num_seqs
        if self.spec.engine.max_num_seqs is not None:
            return least
        wanted = max(least, min(target.kv_tokens // max(1, target.running_tokens), MOST_SEQUENCES))

        def slack(seqs: int) -> float:
            return self._slack(question, question.settings(seqs, settings.max_num_batched_tokens))

        return largest(slack, least, min(wanted, settings.max_num_batched_tokens))

    def _most_seqs(self, question: _Question, frugal: Fit, tokens: int) -> int:
        """Solve max_num_seqs: as many as the cache holds requests, where each further one takes cache itself."""
        least = frugal.settings.max_num_seqs
        if self.spec.engine.max_num_seqs is not None:
            return least
        cap = max(least, min(question.caps.seqs, tokens, MOST_SEQUENCES))

        def slack(seqs: int) -> float:
            settings = question.settings(seqs, tokens)
            room = self._room(question, settings)
            return min(self._slack(question, settings), room - seqs)

        found = largest(slack, least, cap)
        rounded = found // _SEQUENCE_STEP * _SEQUENCE_STEP
        return found if found <= 2 * _SEQUENCE_STEP or found == cap else max(least, rounded)

    def _room(self, question: _Question, settings: EngineSettings) -> int:
        result = self.ledger(question.device, settings)
        if isinstance(result, Refusal):
            return 0
        return self.requests_at_once(question.device, settings, result, question.target.running_tokens)

    def _slack(self, question: _Question, settings: EngineSettings) -> float:
        """Give the tokens of KV cache that are left once the target has what it asks for; negative in doubt."""
        attempt, target = self.check(question.device, settings, question.target), question.target
        result = self.ledger(question.device, settings)
        if isinstance(result, Refusal):
            return -float(settings.max_num_batched_tokens)
        spare = float(result.kv_tokens - max(target.kv_tokens, target.concurrency * target.request_tokens))
        holds = isinstance(attempt, Fit) and not attempt.is_tight
        return max(0.0, spare) if holds else min(-1.0, spare)


@lru_cache(maxsize=256)
def _whole_weights(profile: ModelProfile, dtype: str) -> int:
    """Give the bytes of all weights on one rank that holds everything: no rank of n holds less than the nth part."""
    held = profile.dtype if dtype == "auto" else dtype
    return rank_weights(profile, RankLayout(1, 1, 0), held).tensor_bytes


def base_settings(
    spec: LLMDeploymentSpec, version: EngineVersion, dtype: str, kv_cache_dtype: str = "auto"
) -> EngineSettings:
    """Give the settings that depend on neither shape nor target; sizes and limits are placeholders of one.

    `kv_cache_dtype` is taken where the spec leaves it open.
    """
    pinned_bytes, pinned_cache = spec.engine.kv_cache_memory, spec.precision.kv_cache
    return EngineSettings(
        tensor_parallel_size=1,
        pipeline_parallel_size=1,
        dtype=dtype,
        kv_cache_dtype=kv_cache_dtype if pinned_cache.lower() == "auto" else pinned_cache,
        gpu_memory_utilization=spec.engine.gpu_memory_utilization or version.default_gpu_memory_utilization,
        max_model_len=1,
        max_num_seqs=1,
        max_num_batched_tokens=1,
        enforce_eager=bool(spec.engine.enforce_eager),
        kv_cache_memory_bytes=None if pinned_bytes is None else parse_quantity_bytes(pinned_bytes),
    )


def _may_lower(found: Fit | Misfit) -> bool:
    """Tell whether less utilisation could help: the start-up check is in doubt or fails."""
    if isinstance(found, Misfit):
        return found.refusal.reason is Reason.FREE_MEMORY_BELOW_UTILIZATION
    return found.is_tight


def _cause(result: Ledger) -> Refusal:
    if result.refusal is not None:
        return result.refusal
    return Refusal(Reason.INSUFFICIENT_MEMORY, "The KV cache has no room for one request.")


def _too_few(room: int, settings: EngineSettings, target: Target) -> Refusal:
    ranks = settings.data_parallel_size
    if room >= target.concurrency:
        return Refusal(
            Reason.PIN_CONFLICT,
            f"spec.engine.maxNumBatchedTokens allows {settings.max_num_seqs * ranks} requests per step; "
            f"spec.workload.concurrencyPerReplica asks for {target.concurrency * ranks}.",
        )
    return Refusal(
        Reason.CONCURRENCY_TOO_HIGH,
        f"The KV cache holds {room * ranks} requests of {target.request_tokens:,} tokens at once; "
        f"spec.workload.concurrencyPerReplica asks for {target.concurrency * ranks}.",
    )


def _too_little_cache(result: Ledger, target: Target) -> Refusal:
    return Refusal(
        Reason.CONTEXT_TOO_LONG,
        f"The KV cache holds {result.kv_tokens:,} tokens, fewer than the {target.kv_tokens:,} that are aimed at.",
    )
