"""Which measured start-ups stand behind a plan's ledger, in words.

A plan that was corrected by measurements says so. Nothing is corrected here: the memory model does that.
"""

from __future__ import annotations

from stowage.memory.calibration import UNCALIBRATED, Calibration, CalibrationKey, calibration_key
from stowage.memory.device import DeviceMemory
from stowage.memory.release.engine_version import EngineVersion
from stowage.model.profile import ModelProfile
from stowage.planning.settings import EngineSettings


def calibrated_words(
    calibration: Calibration,
    profile: ModelProfile,
    settings: EngineSettings,
    device: DeviceMemory,
    version: EngineVersion,
) -> str | None:
    """Name the start-ups whose measurements correct the ledger of these settings; None where there are none."""
    if calibration is UNCALIBRATED or device.is_cpu or settings.kv_cache_memory_bytes is not None:
        return None
    shape = settings.shape(version.default_gpu_memory_utilization)
    key = calibration_key(profile, shape, device, version)
    same = calibration.starts(key)
    if same:
        return f"{_count(same)} of {key.architecture} {_where(key)}"
    others = calibration.starts(key.wider())
    if others:
        return f"{_count(others)} of other models or limits {_where(key)} (memory outside of PyTorch only)"
    return None


def _count(number: int) -> str:
    return f"{number} start-up{'' if number == 1 else 's'}"


def _where(key: CalibrationKey) -> str:
    split = f"tp{key.tensor_parallel_size}"
    if key.pipeline_parallel_size > 1:
        split += f" pp{key.pipeline_parallel_size}"
    return f"on {key.device} ({split}) with vLLM {key.release}"
