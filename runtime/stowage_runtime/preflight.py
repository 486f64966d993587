"""Compares the machine with what the plan was made for, before anything is downloaded or started.

A pod on the wrong card would fail after minutes of loading with an error that points elsewhere, or worse, run
with another memory than planned. Each mismatch ends with a sentence that says what was expected and what is
there.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stowage_runtime.contract import EngineExpectation, GpuExpectation
from stowage_runtime.failures import AgentFailure
from stowage_runtime.processes import Processes, own_command

_MIB = 1024**2
_QUERY = ("--query-gpu=name,memory.total,compute_cap,driver_version", "--format=csv,noheader,nounits")
_NVIDIA_SMI_SECONDS = 60.0
_ENGINE_PROBE_SECONDS = 180.0
_NO_DEVICES = "No devices were found"


@dataclass(frozen=True)
class VisibleGpu:
    """A GPU as the driver shows it inside the container; None where it does not say."""

    name: str
    total_memory_bytes: int | None
    compute_capability: str | None
    driver_version: str


def parse_gpus(output: str) -> list[VisibleGpu]:
    """Read what nvidia-smi printed for the query of this module; lines of another form are skipped."""
    gpus = []
    for line in output.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == 4 and cells[0]:
            name, memory_mib, capability, driver = cells
            memory = int(memory_mib) * _MIB if memory_mib.isdecimal() else None
            known = capability if re.fullmatch(r"\d+\.\d+", capability) else None
            gpus.append(VisibleGpu(name, memory, known, driver))
    return gpus


def gpu_mismatch(expected: GpuExpectation, gpus: Sequence[VisibleGpu]) -> AgentFailure | None:
    """Say what is wrong with the visible GPUs, if anything."""
    if len(gpus) != expected.count:
        return AgentFailure(
            "GPUCountMismatch",
            f"The container sees {len(gpus)} GPUs, the plan needs {expected.count} of {expected.product}.",
            {"expectedCount": expected.count, "visibleCount": len(gpus)},
        )
    for index, gpu in enumerate(gpus):
        problem = _type_mismatch(expected, index, gpu) or _memory_mismatch(expected, index, gpu)
        if problem is not None:
            return problem
    return None


def _type_mismatch(expected: GpuExpectation, index: int, gpu: VisibleGpu) -> AgentFailure | None:
    found: dict[str, object] = {
        "gpu": index,
        "product": gpu.name,
        "computeCapability": gpu.compute_capability,
    }
    if _comparable(gpu.name) != _comparable(expected.product):
        message = f"GPU {index} is {gpu.name}, the plan was made for {expected.product}."
        return AgentFailure("GPUTypeMismatch", message, found)
    if gpu.compute_capability not in (None, expected.compute_capability):
        message = (
            f"GPU {index} ({gpu.name}) has compute capability {gpu.compute_capability}, "
            f"the plan was made for {expected.compute_capability}."
        )
        return AgentFailure("GPUTypeMismatch", message, found)
    return None


def _memory_mismatch(expected: GpuExpectation, index: int, gpu: VisibleGpu) -> AgentFailure | None:
    # A slice shows the memory of the whole card here; the engine itself sees the slice's.
    if gpu.total_memory_bytes is None or _is_slice(expected.product):
        return None
    if gpu.total_memory_bytes >= expected.min_total_memory_bytes:
        return None
    return AgentFailure(
        "GPUMemoryTooSmall",
        f"GPU {index} ({gpu.name}) has {gpu.total_memory_bytes // _MIB} MiB of memory, "
        f"the plan needs {-(-expected.min_total_memory_bytes // _MIB)} MiB.",
        {"gpu": index, "totalBytes": gpu.total_memory_bytes, "neededBytes": expected.min_total_memory_bytes},
    )


def _comparable(product: str) -> str:
    """Bring a driver's name and a node label of the same card to the same text.

    GPU Feature Discovery drops what a label may not hold and writes dashes for spaces, older drivers leave
    the vendor out, and sharing or slicing puts a suffix behind the name.
    """
    label = re.sub(r"[^A-Za-z0-9\-_. ]", "", product).strip().replace(" ", "-")
    label = re.sub(r"-MIG-[0-9a-z.+]+$|-SHARED$", "", label)
    return re.sub(r"^NVIDIA-", "", label).lower()


def _is_slice(product: str) -> bool:
    return "-MIG-" in product


class Preflight:
    """Runs the checks; every method raises AgentFailure with the mismatch."""

    def __init__(self, processes: Processes, env: Mapping[str, str]) -> None:
        self._processes = processes
        self._env = env

    def check_gpus(self, expected: GpuExpectation) -> None:
        """Compare count, product, compute capability and memory of the visible GPUs."""
        if shutil.which("nvidia-smi", path=self._env.get("PATH")) is None:
            message = (
                "There is no nvidia-smi in the container: the NVIDIA container runtime did not set it up."
            )
            raise AgentFailure("DriverUnavailable", message)
        code, output = self._processes.run(["nvidia-smi", *_QUERY], self._env, _NVIDIA_SMI_SECONDS)
        if code != 0 and _NO_DEVICES not in output:
            said = " ".join(output.split())[:500] or "nothing"
            raise AgentFailure("DriverUnavailable", f"nvidia-smi ended with code {code} and said: {said}")
        gpus = parse_gpus(output)
        if _is_slice(expected.product):
            gpus = self._slices(gpus)
        problem = gpu_mismatch(expected, gpus)
        if problem is not None:
            raise problem

    def _slices(self, gpus: list[VisibleGpu]) -> list[VisibleGpu]:
        """Replace cards by their visible MIG slices, which only the plain listing shows."""
        code, output = self._processes.run(["nvidia-smi", "-L"], self._env, _NVIDIA_SMI_SECONDS)
        slices = len(re.findall(r"^\s+MIG ", output, re.MULTILINE)) if code == 0 else 0
        return [gpus[0]] * slices if gpus and slices else gpus

    def check_engine(self, expected: EngineExpectation) -> None:
        """Compare the vLLM that this image's python3 would run with the version of the plan."""
        code, output = self._processes.run(own_command("_probe-engine"), self._env, _ENGINE_PROBE_SECONDS)
        found = _last_json_line(output) if code == 0 else {}
        version = found.get("version")
        if not isinstance(version, str):
            said = found.get("error") or " ".join(output.split())[-300:] or "no answer"
            raise AgentFailure("EngineMissing", f"The image's python3 has no usable vLLM: {said}.")
        if _public(version) != _public(expected.version):
            raise AgentFailure(
                "EngineVersionMismatch",
                f"The image has vLLM {version}, the plan was made for {expected.version}: "
                "set spec.engine.version to what the image has, or use another image.",
                {"foundVersion": version, "expectedVersion": expected.version},
            )


def _last_json_line(output: str) -> dict[str, Any]:
    """Read the last line, since an image may print warnings before it; {} when that is no object."""
    try:
        found = json.loads(output.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return {}
    return found if isinstance(found, dict) else {}


def _public(version: str) -> str:
    """Leave out the build's local part: 0.32.0+cpu is 0.32.0."""
    return version.split("+", 1)[0].lstrip("v")
