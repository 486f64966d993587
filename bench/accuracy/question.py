"""From a case to the question that the ledger answers, with every assumption said.

What a row leaves open is filled with the engine's own defaults of that release. Nothing here depends on which row
or model it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bench.accuracy import values
from bench.accuracy.assumed_layout import assumed_layout
from bench.accuracy.case import Case
from bench.accuracy.gpu_names import find_card
from bench.accuracy.launch import (
    draft_method,
    draft_settings,
    launch_options,
    uses_offline_entry_point,
)
from bench.accuracy.models import ModelFolder
from bench.accuracy.release_dates import release_of_month
from stowage.api.refusal import Refusal
from stowage.memory.assumed_draft import assumed_draft
from stowage.memory.budget import DeviceMemory, EngineShape, default_batch_limits
from stowage.memory.kv.attention_backend import stated_kv_dtype
from stowage.memory.kv.dtype import known_kv_dtypes
from stowage.memory.quantized.on_load import quantized_on_load
from stowage.memory.release.engine_version import (
    EngineVersion,
    engine_on,
    engine_version,
    newest_engine_version,
)
from stowage.memory.shape import LoraSettings, SpeculativeSettings
from stowage.model.families.removed import last_engines
from stowage.model.profile import ModelProfile

_V0_RELEASE = "0.6.6"
_GIB = 2**30
_CONTEXT_GIB = 0.5
"""What a CUDA context takes, where only the free memory is stated."""

_UNKNOWN_CAPABILITY = (8, 0)
"""Of cards that are not in the catalog, and of those whose numbers mean something else."""


@dataclass(frozen=True)
class Question:
    """One question to the ledger."""

    profile: ModelProfile
    shape: EngineShape
    device: DeviceMemory
    version: EngineVersion
    assumed: tuple[str, ...]


def ask(case: Case, models: ModelFolder) -> Question | str:
    """Work out the question of a case, or say why there is none."""
    profile = models.profile(str(case.model_id))
    if isinstance(profile, str):
        return profile
    return _Reading(case, models, profile).question()


def find_device(case: Case) -> tuple[DeviceMemory, bool, str | None] | str:
    """Find the device of a case, whether its memory is certain, and what was assumed; or say why not."""
    name, stated = str(case.gpu_name or ""), _positive(case.row.get("total_gpu_memory_gib"))
    card = find_card(name)
    if card is not None:
        total = card.gpu.cuda_total_bytes if stated is None else int(stated * _GIB)
        device = DeviceMemory.of_gpu(card.gpu, total)
        if card.gpu.vendor == "Intel":
            device = replace(device, compute_capability=_UNKNOWN_CAPABILITY)
        said = f"{total / _GIB:.2f} GiB on {card.gpu.name}" if stated is None else None
        certain = card.gpu.vendor == "NVIDIA" and (stated is not None or card.decided)
        return device, certain, said
    in_name = re.search(r"(\d+(?:\.\d+)?)\s*g", name.lower())
    free = _positive(case.row.get("free_gpu_memory_gib"))
    memory = stated or (float(in_name[1]) if in_name else None) or (free + _CONTEXT_GIB if free else None)
    if memory is None:
        return f"the GPU {name!r} is not in the catalog and its memory is not stated"
    said = f"{memory:g} GiB and compute capability 8.0 for {name}, which is not in the catalog"
    return DeviceMemory(name, int(memory * _GIB), _UNKNOWN_CAPABILITY), stated is not None, said


def _positive(value: Any) -> float | None:
    return (
        float(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
        else None
    )


@dataclass
class _Reading:
    """Reads one case, collecting what had to be assumed."""

    case: Case
    models: ModelFolder
    profile: ModelProfile
    assumed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.options: Mapping[str, Any] = launch_options(self.case)
        self.complete = bool(self.case.cmd_complete)

    def question(self) -> Question | str:
        version, found = self._version(), find_device(self.case)
        if isinstance(version, Refusal):
            return version.message
        if isinstance(found, str):
            return found
        device, _, said = found
        self.assumed += [said] if said else []
        version = engine_on(version, device.compute_capability) if not self.case.engine else version
        if self.profile.weight_band:
            self.assumed.append(" ".join(self.profile.notes))
        method = self._on_load(version)
        shape = self._shape(device, version, method)
        return Question(self.profile, shape, device, version, tuple(self.assumed))

    def _version(self) -> EngineVersion | Refusal:
        engine, release = self.case.row.get("engine"), self.case.release
        if release is None:
            release, why = self._unstated_release(engine)
            self.assumed.append(f"vLLM {release}, {why}")
        elif self.case.is_dev_build:
            self.assumed.append(f"that {release} behaves like its release")
        return engine_version(release, engine)

    def _unstated_release(self, engine: str | None) -> tuple[str, str]:
        """Give the newest release of the month that the row names, else the newest there is."""
        dated = release_of_month(self.case)
        if dated is not None:
            return dated[0], f"the newest of {dated[1]}, as the row names no release"
        if engine == "V0":
            return _V0_RELEASE, "as the row names no release"
        newest = last_engines().get(self.profile.architecture, newest_engine_version())
        return newest, "as the row names no release"

    def _stated(self, name: str) -> Any:
        value = self.case.row.get(name)
        return self.options.get(name) if value is None else value

    def _assume(self, value: Any, what: str) -> None:
        if not self.complete:
            self.assumed.append(f"{what} {value:,}" if isinstance(value, int) else f"{what} {value}")

    def _whole(self, name: str, default: int, what: str | None = None) -> int:
        """Give a number that is stated, else the engine's default: an assumption where the command is cut."""
        stated = values.whole(self._stated(name))
        if stated is None and what is not None:
            self._assume(default, what)
        return default if stated is None else stated

    def _shape(self, device: DeviceMemory, version: EngineVersion, method: str | None) -> EngineShape:
        length = self._length()
        seqs, tokens = self._batch_limits(device, version, length)
        graphs = self._graph_sizes()
        return EngineShape(
            tensor_parallel_size=self._ranks(),
            pipeline_parallel_size=self._whole("pipeline_parallel_size", 1),
            dtype=values.dtype(self._stated("dtype")),
            kv_cache_dtype=self._kv_dtype(device, version),
            gpu_memory_utilization=self._utilization(version),
            max_model_len=length,
            max_num_seqs=seqs,
            max_num_batched_tokens=tokens,
            enforce_eager=self._stated("enforce_eager") is True or graphs == (),
            kv_cache_memory_bytes=values.whole(self.options.get("kv_cache_memory_bytes")),
            data_parallel_size=self._whole("data_parallel_size", 1),
            enable_expert_parallel=self.options.get("enable_expert_parallel") is True,
            decode_context_parallel_size=self._whole("decode_context_parallel_size", 1),
            block_size=values.whole(self._stated("block_size")),
            quantization=method,
            enable_prefix_caching=self.options.get("enable_prefix_caching") is not False,
            language_model_only=self.options.get("language_model_only") is True,
            limit_mm_per_prompt=values.limits(self.options.get("limit_mm_per_prompt")),
            cudagraph_capture_sizes=graphs,
            lora=self._lora(),
            speculative=self._speculative(),
        )

    def _ranks(self) -> int:
        """Give the tensor parallel size; where a row with several GPUs says nothing at all, all of them."""
        sizes = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
        gpus = values.whole(self.case.row.get("gpu_count")) or 1
        if self.complete or gpus == 1 or any(self._stated(name) is not None for name in sizes):
            return self._whole("tensor_parallel_size", 1)
        self.assumed.append(f"TP {gpus}, as many as the row's GPUs")
        return gpus

    def _utilization(self, version: EngineVersion) -> float:
        stated = values.share(self._stated("gpu_memory_utilization"))
        if stated is None:
            self._assume(version.default_gpu_memory_utilization, "the default utilisation of")
        return stated or version.default_gpu_memory_utilization

    def _length(self) -> int:
        """Give the stated context; one beyond the model's means that somebody overrode its limit."""
        stated = values.whole(self._stated("max_model_len"))
        if stated is None:
            self._assume(self.profile.default_max_model_len, "the model's own context of")
            return self.profile.default_max_model_len
        if stated > self.profile.max_model_len:
            self.assumed.append(
                f"that the model's limit of {self.profile.max_model_len:,} tokens is overridden"
            )
            self.profile = replace(self.profile, max_model_len=stated)
        return stated

    def _batch_limits(self, device: DeviceMemory, version: EngineVersion, length: int) -> tuple[int, int]:
        entry = "LLM" if uses_offline_entry_point(self.case) else "server"
        seqs, tokens = default_batch_limits(
            device, version, max_model_len=length, entry_point=entry, profile=self.profile
        )
        seqs = self._whole("max_num_seqs", seqs, "max_num_seqs")
        tokens = self._whole(
            "max_num_batched_tokens", max(1, min(tokens, seqs * length)), "max_num_batched_tokens"
        )
        return min(seqs, tokens), tokens

    def _graph_sizes(self) -> tuple[int, ...] | None:
        """Give the batch sizes to capture where the command says them, () where it says none at all."""
        settings = self.options.get("compilation_config")
        settings = settings if isinstance(settings, Mapping) else {}
        mode = settings.get("cudagraph_mode") or self.options.get("cudagraph_mode")
        if self.options.get("O0") is True or str(mode).endswith("NONE"):
            return ()
        sizes = settings.get("cudagraph_capture_sizes") or self.options.get("cudagraph_capture_sizes")
        if isinstance(sizes, list) and sizes and all(type(size) is int for size in sizes):
            return tuple(sorted(sizes))
        return None

    def _kv_dtype(self, device: DeviceMemory, version: EngineVersion) -> str:
        """Give the format of the cache; 16-bit names mean the model's own, unknown 8-bit ones fp8."""
        stated = values.name(self._stated("kv_cache_dtype"))
        if stated is None:
            return self._usual_kv_dtype(device, version)
        if stated in ("auto", "half", "fp16", "float16", "bf16", "bfloat16"):
            return "auto"
        if stated in known_kv_dtypes(version.version):
            return stated
        known = "fp8"
        self.assumed.append(f"a KV cache in {known}, as vLLM {version.version} does not know {stated!r}")
        return known

    def _usual_kv_dtype(self, device: DeviceMemory, version: EngineVersion) -> str:
        """Give what a command has that says nothing of it: "auto", unless no engine would have started so."""
        capability = None if device.is_cpu else device.compute_capability
        usual = stated_kv_dtype(self.profile.architecture, version.version, capability)
        if usual != "auto":
            self.assumed.append(f"a KV cache in {usual}, without which this model does not start")
        return usual

    def _on_load(self, version: EngineVersion) -> str | None:
        """Give a method that quantises while loading: one that the checkpoint itself does not have.

        A method that needs a quantised checkpoint, of a model whose config.json is plain, means its usual layout.
        """
        stated = values.name(self._stated("quantization"))
        if stated is None or self.profile.quantization is not None:
            return None
        method = stated.split()[0]
        for name in (method, f"{method}_per_tensor"):
            if not isinstance(quantized_on_load(self.profile, name, version), Refusal):
                return name
        layout, said = assumed_layout(stated, str(self.case.model_id))
        quantised = self.models.profile(str(self.case.model_id), layout)
        if isinstance(quantised, str):
            self.assumed.append(f"16-bit weights, as {stated!r} is not understood: {quantised}")
            return None
        self.assumed.append(f"{said}, as config.json states no quantisation")
        self.profile = quantised
        return None

    def _lora(self) -> LoraSettings | None:
        if self.options.get("enable_lora") is not True:
            return None
        return LoraSettings(self._whole("max_loras", 1), self._whole("max_lora_rank", 16))

    def _speculative(self) -> SpeculativeSettings | None:
        settings = draft_settings(self.options)
        if not settings:
            return None
        name, number = settings.get("model"), values.whole(settings.get("num_speculative_tokens")) or 1
        method = draft_method(settings)
        if method == "mtp" or not isinstance(name, str):
            return SpeculativeSettings(method, number)
        draft = self.models.profile(name)
        if not isinstance(draft, str):
            return SpeculativeSettings(method, number, draft)
        usual = assumed_draft(self.profile, method)
        said = f"a draft of {usual.num_layers} layers of the model's own width" if usual else "no draft model"
        self.assumed.append(f"{said}: {draft}")
        return SpeculativeSettings(method, number)
