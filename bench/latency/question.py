"""From a case to what runs and what it is asked, with every assumption said.

What a row leaves open is filled with the engine's own defaults of that release; nothing depends on which row it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf

from bench.accuracy.gpu_names import find_card
from bench.latency.case import Case
from bench.latency.datasets import dataset_spreads
from bench.latency.models import LatencyModels
from bench.latency.written import written_gpu, written_release
from stowage.api.refusal import Refusal
from stowage.hardware.gpu import Gpu
from stowage.memory.budget import rank_ledgers, tightest
from stowage.memory.device import DeviceMemory
from stowage.memory.release.batch_limits import default_batch_limits
from stowage.memory.release.engine_version import EngineVersion, engine_version
from stowage.memory.shape import EngineShape
from stowage.model.profile import ModelProfile
from stowage.performance.serving import Serving
from stowage.performance.steady import steady
from stowage.performance.traffic import Traffic
from stowage.performance.work import rank_work

_DEFAULT_INPUT = 1024
_DEFAULT_OUTPUT = 128
_ENOUGH_REQUESTS = 64
_ALL_AT_ONCE = 1000
_RESERVE_BYTES = 3 * 2**30
_OLDEST = "0.2.0"
_UNSTATED = "0.11.0"
"""The release of rows that name none: of published rows that name one (bench/data/public-latency.jsonl), half are at
this release or older."""


@dataclass(frozen=True)
class Question:
    """One question to the estimator."""

    serving: Serving
    traffic: Traffic
    assumed: tuple[str, ...]


def ask(case: Case, models: LatencyModels) -> Question | str:
    """Work out the question of a case, or say why there is none."""
    served = models.served(str(case.model_id), case.precision)
    if isinstance(served, str):
        return served
    written = written_gpu(str(case.gpu_name or ""))
    card = find_card(written.name)
    if card is None:
        return f"the GPU {case.gpu_name!r} is not in the catalog"
    reading = _Reading(case, served.profile, card.gpu, list(served.assumed), written.count)
    return reading.question()


@dataclass
class _Reading:
    """Reads one case, collecting what had to be assumed."""

    case: Case
    profile: ModelProfile
    gpu: Gpu
    assumed: list[str] = field(default_factory=list)
    written_gpus: int | None = None

    def question(self) -> Question:
        version = self._version()
        traffic = self._traffic()
        shape = self._shape(version, traffic)
        serving = Serving(
            self.profile, shape, self.gpu, version, 0, schedules_ahead=self.case.row.get("schedules_ahead")
        )
        serving = self._with_room(serving, traffic)
        return Question(serving, self._held_up(serving, traffic), tuple(self.assumed))

    def _or(self, name: str, default: float, what: str) -> float:
        value = self.case.positive(name)
        if value is not None:
            return value
        self.assumed.append(f"{what} {default:g}")
        return default

    def _version(self) -> EngineVersion:
        """Give the release; a name that is none is read leniently, and the nearest known one is taken."""
        name = self.case.row.get("engine_version") or self.case.row.get("vllm_version")
        found = engine_version(str(name)) if name else None
        if isinstance(found, EngineVersion):
            return found
        inside = written_release(str(name or ""))
        nearest = engine_version(inside) if inside else None
        if not isinstance(nearest, EngineVersion):
            nearest = engine_version(_OLDEST if inside else _UNSTATED)
        assert isinstance(nearest, EngineVersion)
        why = f"{name!r} is no release that is known" if name else "the row names no release"
        self.assumed.append(f"vLLM {nearest.version}, as {why}")
        return nearest

    def _traffic(self) -> Traffic:
        spreads = self._spreads()
        prompt = round(self._or("mean_input_len", _DEFAULT_INPUT, "prompt tokens"))
        output = round(self._or("mean_output_len", _DEFAULT_OUTPUT, "output tokens"))
        clients, rate, requests = self._load()
        return Traffic(
            max(1, prompt),
            max(1, output),
            concurrency=clients,
            requests_per_second=rate,
            prompt_tokens_p95=round(prompt * spreads[0]) if spreads else None,
            output_tokens_p95=round(output * spreads[1]) if spreads else None,
            prefix_hit_rate=float(self.case.row.get("prefix_hit_rate") or 0.0),
            num_requests=requests,
        )

    def _spreads(self) -> tuple[float, float] | None:
        """Give the 95th percentiles over the means of both lengths; None: what the engine of runs assumes."""
        share = self.case.row.get("smallest_length_share")
        if isinstance(share, float):
            return (1 + 0.9 * (1 - share) / (1 + share),) * 2 if share < 1 else None
        found = dataset_spreads(self.case.positive("mean_input_len"), self.case.positive("mean_output_len"))
        self.assumed.append(
            "lengths within 10 % of their means"
            if found is None
            else "lengths spread as those of ShareGPT do, as their means are not round"
        )
        return found

    def _load(self) -> tuple[int | None, float | None, int | None]:
        """Give clients or rate, and how many requests there are where all come at once."""
        clients, rate = self.case.positive("max_concurrency"), self.case.positive("request_rate_configured")
        endless = rate == inf or str(self.case.row.get("request_rate_configured")).lower() in (
            "inf",
            "infinity",
        )
        stated = self.case.positive("num_prompts")
        number = round(stated) if stated else None
        if rate is not None and not endless:
            return None, rate, number or round(self._or("num_prompts", _ALL_AT_ONCE, "requests in the run:"))
        if clients is not None:
            return max(1, round(clients)), None, number
        if endless:
            number = round(self._or("num_prompts", _ALL_AT_ONCE, "requests, all sent at once:"))
            return number, None, number
        self.assumed.append(f"concurrency {_ENOUGH_REQUESTS}, as the row states neither that nor a rate")
        return _ENOUGH_REQUESTS, None, number

    def _layout(self) -> tuple[int, int, int]:
        """Give tensor-parallel ranks, pipeline stages and data-parallel ranks; GPUs that are left run copies."""
        stages = int(self.case.positive("pipeline_parallel_size") or 1)
        tensor, ranks = self.case.positive("tensor_parallel_size"), self.case.positive("data_parallel_size")
        if tensor is None:
            gpus = float(self._gpus() or self._or("gpu_count", 1, "GPUs"))
            tensor = max(1.0, gpus / (ranks or 1) / stages)
            self.assumed.append(f"tensor parallel {tensor:g}, on all GPUs")
        if ranks is None:
            copies = int((self._gpus() or tensor * stages) / tensor / stages)
            ranks = max(1, copies)
            if ranks > 1:
                self.assumed.append(f"{ranks} copies side by side, each on {tensor * stages:g} of the GPUs")
        return int(tensor), stages, int(ranks)

    def _gpus(self) -> float | None:
        """Give the number of GPUs: from its column, else as written beside the GPU's name."""
        return self.case.positive("gpu_count") or self.written_gpus

    def _held_up(self, serving: Serving, traffic: Traffic) -> Traffic:
        """Take clients for a rate where a row states both and so few clients could not keep the rate up."""
        clients = self.case.positive("max_concurrency")
        if traffic.requests_per_second is None or clients is None:
            return traffic
        closed = replace(traffic, concurrency=max(1, round(clients)), requests_per_second=None)
        return traffic if traffic.requests_per_second < steady(serving, closed).request_rate else closed

    def _shape(self, version: EngineVersion, traffic: Traffic) -> EngineShape:
        tensor, stages, ranks = self._layout()
        length = min(self.profile.max_model_len, max(2048, 2 * traffic.peak_context_tokens))
        device = DeviceMemory.of_gpu(self.gpu)
        seqs, tokens = default_batch_limits(device, version, max_model_len=length)
        seqs = int(self.case.positive("max_num_seqs") or seqs)
        tokens = int(self.case.positive("max_num_batched_tokens") or tokens)
        utilization = self.case.positive("gpu_memory_utilization") or version.default_gpu_memory_utilization
        return EngineShape(
            tensor_parallel_size=tensor,
            pipeline_parallel_size=stages,
            dtype="auto",
            kv_cache_dtype=str(self.case.row.get("kv_cache_dtype") or "auto"),
            gpu_memory_utilization=utilization,
            max_model_len=length,
            max_num_seqs=min(seqs, tokens),
            max_num_batched_tokens=tokens,
            enforce_eager=False,
            kv_cache_memory_bytes=None,
            data_parallel_size=ranks,
            enable_expert_parallel=self.case.row.get("expert_parallel") is True,
        )

    def _with_room(self, serving: Serving, traffic: Traffic) -> Serving:
        """Give it the KV tokens of the ledger; where that has no answer, what weights and a reserve leave."""
        gpu, shape = serving.gpu, serving.shape
        device = DeviceMemory.of_gpu(gpu)
        ledgers = rank_ledgers(serving.profile, shape, device, serving.version)
        tokens = 0 if isinstance(ledgers, Refusal) else tightest(ledgers).kv_tokens
        if tokens < traffic.peak_context_tokens:
            why = (
                ledgers.message
                if isinstance(ledgers, Refusal)
                else "the ledger finds no room for one request"
            )
            tokens = max(traffic.peak_context_tokens, _left_over(serving))
            self.assumed.append(f"room for {tokens:,} tokens in the KV cache, although: {why}")
        return replace(serving, kv_tokens=tokens)


def _left_over(serving: Serving) -> int:
    """Estimate the KV tokens that weights and a reserve of 3 GiB leave on a rank."""
    work = rank_work(serving.profile, serving.shape, serving.gpu, serving.version)
    weights = (
        sum(linear.count * linear.weight_bytes for linear in work.linears)
        + sum(entry.count * entry.held * entry.weight_bytes for entry in work.experts)
        + 2 * work.head.weight_bytes
    )
    free = serving.shape.gpu_memory_utilization * serving.gpu.cuda_total_bytes - weights - _RESERVE_BYTES
    each = sum(entry.count * entry.token_bytes for entry in work.attention if entry.span == 0)
    return max(0, int(free / max(1, each)))
