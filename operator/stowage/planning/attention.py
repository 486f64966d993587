"""Which attention backend the engine will use for a plan, in words, and where long prompts would suffer for it.

The choice itself is the memory model's (kv/attention_backends.toml): the engine ends at start where there is none, and
so does planning. Here it is only named, and warned about where the backend that is left is a slow one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from stowage.api.refusal import Refusal
from stowage.memory.device import DeviceMemory
from stowage.memory.kv.attention_backend import choose_backend
from stowage.memory.kv.blocks import attention_needs
from stowage.memory.release.engine_version import EngineVersion, engine_on
from stowage.memory.setting import Setting
from stowage.model.profile import ModelProfile
from stowage.planning.settings import EngineSettings

_LONG_CONTEXT_TOKENS: Final = 32_768
_HOPPER: Final = (9, 0)
# Backends without kernels of their own for the device: they compile general ones, and long prompts take far longer.
_GENERAL: Final = {
    "FLEX_ATTENTION": "is compiled for whatever is asked of it and slow with long prompts",
    "TRITON_ATTN": "has no matrix kernels made for this GPU, so that long prompts take longer",
    "TRITON_MLA": "has no matrix kernels made for this GPU, so that long prompts take longer",
    "XFORMERS": "belongs to the old engine",
}


@dataclass(frozen=True, slots=True)
class AttentionChoice:
    """The backends of a model's layers in words, and what to know about them where context is long."""

    words: str
    warning: str | None = None


def attention_choice(
    profile: ModelProfile, settings: EngineSettings, device: DeviceMemory, version: EngineVersion
) -> AttentionChoice:
    """Name the backends of a shape that the memory model accepts; empty words for a model without attention."""
    on_device = version if device.is_cpu else engine_on(version, device.compute_capability)
    shape = settings.shape(version.default_gpu_memory_utilization)
    question = Setting(profile, shape, device, on_device).cache_question
    found: dict[str, None] = {}
    for needs in attention_needs(question):
        backend = choose_backend(needs, question.where)
        if not isinstance(backend, Refusal):
            found.setdefault(backend.name)
    words = ", ".join(_called(name, device) for name in found)
    slow = [name for name in found if name in _GENERAL]
    if not slow or settings.max_model_len < _LONG_CONTEXT_TOKENS or device.is_cpu:
        return AttentionChoice(words)
    warning = (
        f"Attention runs on {slow[0]} on {device.name}, which {_GENERAL[slow[0]]}; "
        f"the context is {settings.max_model_len:,} tokens."
    )
    return AttentionChoice(words, warning)


def _called(name: str, device: DeviceMemory) -> str:
    if name not in ("FLASH_ATTN", "FLASH_ATTN_MLA"):
        return name
    return f"{name} (FlashAttention {3 if device.compute_capability == _HOPPER else 2})"
