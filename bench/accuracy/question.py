"""From a case to the question that the ledger answers, with every assumption said.

What a row leaves open is filled with the engine's own defaults of that release. Nothing here depends on which row
or model it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.accuracy.case import Case
from bench.accuracy.gpu_names import find_card
from bench.accuracy.launch import launch_options, uses_offline_entry_point
from bench.accuracy.models import ModelFolder
from stowage.api.refusal import Refusal
from stowage.memory.budget import DeviceMemory, EngineShape, default_batch_limits
from stowage.memory.engine_version import EngineVersion, engine_on, engine_version, newest_engine_version
from stowage.memory.shape import LoraSettings, SpeculativeSettings
from stowage.model.families.removed import last_engines
from stowage.model.profile import ModelProfile

_V0_RELEASE = "0.6.6"
_GIB = 2**30
_TORCH_NAMES = {"half": "float16", "float": "float32"}


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
    name, stated = str(case.gpu_name or ""), case.row.get("total_gpu_memory_gib")
    card = find_card(name)
    if card is not None:
        total = card.gpu.cuda_total_bytes if stated is None else int(stated * _GIB)
        device = DeviceMemory(card.gpu.name, total, card.gpu.compute_capability)
        said = f"{total / _GIB:.2f} GiB on {card.gpu.name}" if stated is None else None
        certain = card.gpu.vendor == "NVIDIA" and (stated is not None or card.decided)
        return device, certain, said
    in_name = re.search(r"(\d+(?:\.\d+)?)\s*g", name.lower())
    memory = stated or (float(in_name[1]) if in_name else None)
    if memory is None:
        return f"the GPU {name!r} is not in the catalog and its memory is not stated"
    said = f"{memory:g} GiB and compute capability 8.0 for {name}, which is not in the catalog"
    return DeviceMemory(name, int(memory * _GIB), (8, 0)), stated is not None, said


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
        shape = self._shape(device, version)
        return Question(self.profile, shape, device, version, tuple(self.assumed))

    def _version(self) -> EngineVersion | Refusal:
        engine, release = self.case.row.get("engine"), self.case.release
        if release is None:
            newest = last_engines().get(self.profile.architecture, newest_engine_version())
            release = _V0_RELEASE if engine == "V0" else newest
            self.assumed.append(f"vLLM {release}, as the row names no release")
        elif self.case.is_dev_build:
            self.assumed.append(f"that {release} behaves like its release")
        return engine_version(release, engine)

    def _stated(self, name: str) -> Any:
        value = self.case.row.get(name)
        return self.options.get(name) if value is None else value

    def _or(self, name: str, default: Any, what: str | None = None) -> Any:
        """Give what is stated, else the engine's default, which is an assumption where the command is cut."""
        value = self._stated(name)
        if value is not None:
            return value
        if what is not None and not self.complete:
            self.assumed.append(f"{what} {default:,}" if isinstance(default, int) else f"{what} {default}")
        return default

    def _shape(self, device: DeviceMemory, version: EngineVersion) -> EngineShape:
        length = self._length()
        seqs, tokens = self._batch_limits(device, version, length)
        dtype = str(self._or("dtype", "auto")).removeprefix("torch.")
        utilization = self._or(
            "gpu_memory_utilization", version.default_gpu_memory_utilization, "the default utilisation of"
        )
        return EngineShape(
            tensor_parallel_size=self._whole("tensor_parallel_size", 1),
            pipeline_parallel_size=self._whole("pipeline_parallel_size", 1),
            dtype=_TORCH_NAMES.get(dtype, dtype),
            kv_cache_dtype=str(self._or("kv_cache_dtype", "auto")),
            gpu_memory_utilization=float(utilization),
            max_model_len=length,
            max_num_seqs=seqs,
            max_num_batched_tokens=tokens,
            enforce_eager=bool(self._or("enforce_eager", False)),
            kv_cache_memory_bytes=_number(self.options.get("kv_cache_memory_bytes")),
            data_parallel_size=self._whole("data_parallel_size", 1),
            enable_expert_parallel=self.options.get("enable_expert_parallel") is True,
            decode_context_parallel_size=self._whole("decode_context_parallel_size", 1),
            block_size=_number(self._stated("block_size")),
            quantization=self._on_load(),
            enable_prefix_caching=self.options.get("enable_prefix_caching") is not False,
            language_model_only=self.options.get("language_model_only") is True,
            limit_mm_per_prompt=_limits(self.options.get("limit_mm_per_prompt")),
            lora=self._lora(),
            speculative=self._speculative(),
        )

    def _whole(self, name: str, default: int) -> int:
        return _number(self._stated(name)) or default

    def _length(self) -> int:
        stated = _number(self._stated("max_model_len"))
        return stated or int(self._or("", self.profile.default_max_model_len, "the model's own context of"))

    def _batch_limits(self, device: DeviceMemory, version: EngineVersion, length: int) -> tuple[int, int]:
        entry = "LLM" if uses_offline_entry_point(self.case) else "server"
        seqs, tokens = default_batch_limits(device, version, max_model_len=length, entry_point=entry)
        seqs = int(_number(self._or("max_num_seqs", seqs, "max_num_seqs")) or seqs)
        default = max(1, min(tokens, seqs * length))
        tokens = int(
            _number(self._or("max_num_batched_tokens", default, "max_num_batched_tokens")) or default
        )
        return min(seqs, tokens), tokens

    def _on_load(self) -> str | None:
        """Give a method that quantises while loading: one that the checkpoint itself does not have."""
        method = self._stated("quantization")
        if not isinstance(method, str) or self.profile.quantization is not None:
            return None
        return method.split()[0].lower()

    def _lora(self) -> LoraSettings | None:
        if self.options.get("enable_lora") is not True:
            return None
        return LoraSettings(self._whole("max_loras", 1), self._whole("max_lora_rank", 16))

    def _speculative(self) -> SpeculativeSettings | None:
        settings = self.options.get("speculative_config")
        if not isinstance(settings, Mapping):
            return None
        name = settings.get("model")
        draft = self.models.profile(name) if isinstance(name, str) else None
        if isinstance(draft, str):
            self.assumed.append(f"nothing for the draft model: {draft}")
            draft = None
        number = _number(settings.get("num_speculative_tokens")) or 1
        return SpeculativeSettings(str(settings.get("method") or "draft_model"), number, draft)


def _limits(value: Any) -> tuple[tuple[str, int], ...]:
    if not isinstance(value, Mapping):
        return ()
    return tuple(sorted((str(name), limit) for name, limit in value.items() if isinstance(limit, int)))


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
