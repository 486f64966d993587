"""Whether a model fits on one shape, and with which engine settings.

Batch limits start at the engine's defaults for the device and are lowered step by step only where memory
asks for it, never below the concurrency that the user states and never where the user pins them.
Utilisation, context and KV bytes are taken as pinned or as the engine's defaults. All memory arithmetic is
the memory model's; this module only asks it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from stowage.api.conditions import Reason
from stowage.api.quantity import parse_quantity_bytes
from stowage.api.refusal import Refusal
from stowage.api.v1alpha1 import LLMDeploymentSpec
from stowage.memory.batch_limits import default_batch_limits
from stowage.memory.budget import ledger
from stowage.memory.device import DeviceMemory
from stowage.memory.engine_version import EngineVersion
from stowage.memory.ledger import Ledger
from stowage.model.profile import ModelProfile
from stowage.planning.settings import EngineSettings
from stowage.planning.targets import Target

FITS: Final = "Fits"
DOES_NOT_FIT: Final = "DoesNotFit"
# (max_num_seqs, max_num_batched_tokens) to try after the engine's defaults, from fast to frugal.
_BATCH_STEPS: Final = (
    (512, 4096), (256, 2048), (128, 2048), (64, 2048), (32, 2048), (16, 1024), (8, 1024), (4, 512), (1, 512),
)  # fmt: skip
# Shares to try where the engine's default asks for more than is sure to be free when it starts.
_LOWER_UTILIZATIONS: Final = (0.90, 0.88, 0.85)
_COARSE_STEP: Final = 1_024
_FINE_STEP: Final = 256


@dataclass(frozen=True, slots=True)
class Fit:
    """Settings that hold the target, their ledger, and the requests of `request_tokens` that run at once."""

    settings: EngineSettings
    ledger: Ledger
    concurrency: int
    request_tokens: int
    lowered_from: tuple[int, int] | None = None

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
class Fitter:
    """Finds settings for one model and one wish; remembers ledgers, since targets overlap."""

    profile: ModelProfile
    spec: LLMDeploymentSpec
    version: EngineVersion
    _known: dict[tuple[EngineSettings, DeviceMemory], Ledger | Refusal] = field(
        default_factory=dict, compare=False, repr=False
    )

    def fit(self, device: DeviceMemory, base: EngineSettings, target: Target) -> Fit | Misfit:
        """Find settings that hold the target, with the highest batch limits that leave no doubt.

        `base` carries what is fixed: parallel size, dtypes, utilisation, pinned KV bytes. Utilisation is lowered
        only where it is not pinned and its default leaves a doubt. Where every choice is tight, the most frugal
        one is taken.
        """
        found = self._fit_at(device, base, target)
        if self.spec.engine.gpu_memory_utilization is not None or not _may_lower(found):
            return found
        default = base.gpu_memory_utilization or 0.0
        for share in _LOWER_UTILIZATIONS:
            if share < default:
                attempt = self._fit_at(device, replace(base, gpu_memory_utilization=share), target)
                if isinstance(attempt, Fit) and not attempt.is_tight:
                    return attempt
        return found

    def _fit_at(self, device: DeviceMemory, base: EngineSettings, target: Target) -> Fit | Misfit:
        first, *lower = self._steps(device, base, target)
        frugal = self.check(device, lower[-1] if lower else first, target)
        if isinstance(frugal, Misfit) or not lower:
            return frugal
        for settings in (first, *lower):
            attempt = self.check(device, settings, target)
            if isinstance(attempt, Fit) and not attempt.is_tight:
                return self._with_origin(attempt, first)
        return self._with_origin(frugal, first)

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

    def check(self, device: DeviceMemory, settings: EngineSettings, target: Target) -> Fit | Misfit:
        """Tell whether exactly these settings hold the target."""
        result = self.ledger(device, settings)
        if isinstance(result, Refusal):
            return Misfit(result)
        if result.verdict == DOES_NOT_FIT:
            return Misfit(_cause(result), result.largest_max_model_len)
        room = self._requests_at_once(device, settings, result, target.request_tokens)
        served = min(room, settings.max_num_seqs)
        if served < target.concurrency:
            return Misfit(_too_few(room, settings, target), result.largest_max_model_len, served)
        if result.kv_tokens < target.kv_tokens:
            return Misfit(_too_little_cache(result, target), result.largest_max_model_len, room)
        return Fit(settings, result, served, target.request_tokens)

    def ledger(self, device: DeviceMemory, settings: EngineSettings) -> Ledger | Refusal:
        """Compute the ledger of these settings, or recall it."""
        key = (settings, device)
        if key not in self._known:
            shape = settings.shape(self.version.default_gpu_memory_utilization)
            self._known[key] = ledger(self.profile, shape, device, self.version)
        return self._known[key]

    def _at_length(self, device: DeviceMemory, fit: Fit, target: Target, length: int) -> Fit | None:
        if length <= fit.settings.max_model_len:
            return fit if length == fit.settings.max_model_len else None
        attempt = self.check(device, replace(fit.settings, max_model_len=length), target)
        if isinstance(attempt, Misfit) or attempt.is_tight:
            return None
        return replace(attempt, lowered_from=fit.lowered_from)

    def _requests_at_once(
        self, device: DeviceMemory, settings: EngineSettings, whole: Ledger, request_tokens: int
    ) -> int:
        """Count how many requests of that length the blocks hold; one block always stays unused by the engine."""
        if request_tokens >= settings.max_model_len:
            return int(whole.max_concurrency)
        shorter = self.ledger(device, replace(settings, max_model_len=request_tokens))
        if isinstance(shorter, Refusal) or shorter.max_concurrency <= 0:
            return int(whole.max_concurrency)
        blocks_per_request = max(1, round(shorter.num_gpu_blocks / shorter.max_concurrency))
        return max(int(whole.max_concurrency), (whole.num_gpu_blocks - 1) // blocks_per_request)

    def _steps(
        self, device: DeviceMemory, base: EngineSettings, target: Target
    ) -> tuple[EngineSettings, ...]:
        steps = dict.fromkeys(self._batch_limits(device, target))
        return tuple(
            replace(
                base, max_model_len=target.context_tokens, max_num_seqs=seqs, max_num_batched_tokens=tokens
            )
            for seqs, tokens in steps
        )

    def _batch_limits(self, device: DeviceMemory, target: Target) -> Iterator[tuple[int, int]]:
        """Yield limits from the engine's defaults downwards, pins kept and max_num_seqs ≤ max_num_batched_tokens."""
        pinned_seqs, pinned_tokens = self.spec.engine.max_num_seqs, self.spec.engine.max_num_batched_tokens
        default_seqs, default_tokens = default_batch_limits(device, self.version)
        floor = min(target.batch_floor, pinned_tokens or target.batch_floor)
        for seqs, tokens in ((default_seqs, default_tokens), *_BATCH_STEPS):
            seqs = pinned_seqs or max(min(seqs, default_seqs), floor)
            tokens = pinned_tokens or max(min(tokens, default_tokens), seqs)
            yield min(seqs, tokens), tokens

    @staticmethod
    def _with_origin(fit: Fit, first: EngineSettings) -> Fit:
        wanted = (first.max_num_seqs, first.max_num_batched_tokens)
        got = (fit.settings.max_num_seqs, fit.settings.max_num_batched_tokens)
        return fit if got == wanted else replace(fit, lowered_from=wanted)


def base_settings(spec: LLMDeploymentSpec, version: EngineVersion, dtype: str, tp: int) -> EngineSettings:
    """Give the settings that do not depend on the target; batch limits and context are placeholders of one token."""
    pinned_bytes = spec.engine.kv_cache_memory
    return EngineSettings(
        tensor_parallel_size=tp,
        pipeline_parallel_size=1,
        dtype=dtype,
        kv_cache_dtype="auto" if spec.precision.kv_cache.lower() == "auto" else spec.precision.kv_cache,
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
    if room >= target.concurrency:
        return Refusal(
            Reason.PIN_CONFLICT,
            f"spec.engine.maxNumBatchedTokens allows {settings.max_num_seqs} requests per step; "
            f"spec.workload.concurrencyPerReplica asks for {target.concurrency}.",
        )
    return Refusal(
        Reason.CONCURRENCY_TOO_HIGH,
        f"The KV cache holds {room} requests of {target.request_tokens:,} tokens at once; "
        f"spec.workload.concurrencyPerReplica asks for {target.concurrency}.",
    )


def _too_little_cache(result: Ledger, target: Target) -> Refusal:
    return Refusal(
        Reason.CONTEXT_TOO_LONG,
        f"The KV cache holds {result.kv_tokens:,} tokens, fewer than the {target.kv_tokens:,} that are aimed at.",
    )
