"""Why an engine ended: last lines as public logs have them, and the sentence that they become."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowage_runtime.contract import TERMINATION_REASONS, Termination
from stowage_runtime.exit_causes import STAGES, classify_exit, stage_of
from stowage_runtime.tables import table

GIB = 1024**3
MESSENGER = "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above."
CORE = "(EngineCore_DP0 pid=1094) ERROR 04-05 01:12:55 [core.py:390] "


def explain(*lines: str, version: str = "0.32.0", returncode: int = 1, stage: str = "Loading") -> Termination:
    return classify_exit([*lines, MESSENGER], returncode, version, stage)


@pytest.mark.parametrize(
    ("version", "line", "reason", "words", "details"),
    [
        pytest.param(
            "0.15.2",
            CORE
            + "ValueError: To serve at least one request with the models's max seq len (262144), (24.0 GiB KV "
            "cache is needed, which is larger than the available KV cache memory (3.18 GiB). Based on the available "
            "memory, the estimated maximum model length is 34736. Try increasing `gpu_memory_utilization`",
            "KVCacheTooSmall",
            "vLLM estimates a maximum model length of 34,736 tokens.",
            {"maxModelLen": 262144, "estimatedMaxModelLen": 34736, "kvNeededBytes": 24 * GIB},
            id="one request does not fit, with an estimate",
        ),
        pytest.param(
            "0.8.3",
            CORE
            + "ValueError: To serve at least one request with the models's max seq len (1048576), (24.00 GiB KV "
            "cache is needed, which is larger than the available KV cache memory (9.97 GiB). Try increasing",
            "KVCacheTooSmall",
            "needs 24.00 GiB of KV cache but 9.97 GiB are available.",
            {"maxModelLen": 1048576},
            id="one request does not fit, without an estimate",
        ),
        pytest.param(
            "0.2.7",
            "ValueError: The model's max seq len (4096) is larger than the maximum number of tokens that can be stored "
            "in KV cache (3664). Try increasing `gpu_memory_utilization`",
            "KVCacheTooSmall",
            "the KV cache holds 3,664 tokens.",
            {"estimatedMaxModelLen": 3664},
            id="engine V0 counts tokens",
        ),
        pytest.param(
            "0.28.0",
            "(EngineCore_DP0 pid=3584999) ERROR 08-19 05:56:57 [core.py:1346] ValueError: No available memory for the "
            "cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine",
            "KVCacheTooSmall",
            "no memory is left for the KV cache",
            {},
            id="nothing left for the cache",
        ),
        pytest.param(
            "0.9.2",
            "ValueError: Free memory on device (59.32/79.15 GiB) on startup is less than desired GPU memory "
            "utilization (0.9, 71.24 GiB). Decrease GPU memory utilization or reduce GPU memory used.",
            "FreeMemoryBelowUtilization",
            "59.32 GiB of 79.15 GiB GPU memory were free, but gpu_memory_utilization 0.9 asks for",
            {"utilization": 0.9},
            id="somebody else is on the GPU",
        ),
        pytest.param(
            "0.16.0",
            "ValueError: Free memory on device cuda:0 (19.77/22.05 GiB) on startup is less than desired GPU memory "
            "utilization (0.9, 19.84 GiB). Decrease GPU memory utilization or reduce",
            "FreeMemoryBelowUtilization",
            "asks for 19.84 GiB",
            {"device": "cuda:0"},
            id="the device is named since 0.12",
        ),
        pytest.param(
            "0.32.0",
            "(EngineCore pid=7) ValueError: Available memory on node 0 (3.2/20.46 GiB) on startup is less than desired "
            "CPU memory utilization (0.92, 18.82 GiB). On the CPU backend, the `--gpu-memory-utilization` flag",
            "FreeMemoryBelowUtilization",
            "3.20 GiB of 20.46 GiB were free on memory node 0",
            {},
            id="not enough memory on a CPU node",
        ),
        pytest.param(
            "0.9.1",
            "(VllmWorker rank=5 pid=50999) ERROR 07-07 15:19:48 [multiproc_executor.py:492] torch.OutOfMemoryError: "
            "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 5 has a total capacity of 79.25 GiB of which 1.79 GiB "
            "is free. Including non-PyTorch memory, this process has 77.46 GiB memory in use.",
            "CUDAOutOfMemory",
            "while loading the weights: 2.5 GiB were asked for, 1.79 GiB of 79.25 GiB were free.",
            {"gpu": 5, "requestedBytes": 2684354560, "stage": "Loading"},
            id="out of memory on one rank",
        ),
        pytest.param(
            "0.8.5",
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 MiB. GPU 6 has a total capacity of "
            "44.53 GiB of which 448.00 KiB is free.",
            "CUDAOutOfMemory",
            "2 MiB were asked for, 448 KiB of 44.53 GiB were free",
            {"freeBytes": 448 * 1024},
            id="small units",
        ),
        pytest.param(
            "0.14.0",
            "OutOfMemoryError: HIP out of memory. Tried to allocate 80.00 MiB. GPU 0 has a total capacity of 15.92 GiB "
            "of which 0 bytes is free.",
            "CUDAOutOfMemory",
            "0 bytes of 15.92 GiB were free",
            {"freeBytes": 0},
            id="an AMD card",
        ),
        pytest.param(
            "0.6.0",
            "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 3.44 GiB (GPU 0; 79.14 GiB total "
            "capacity; 63.97 GiB already allocated; 3.14 GiB free; 64.00 GiB reserved in total by PyTorch)",
            "CUDAOutOfMemory",
            "3.44 GiB were asked for, 3.14 GiB of 79.14 GiB were free",
            {"gpu": 0},
            id="the older wording of torch",
        ),
        pytest.param(
            "0.32.0",
            "RuntimeError: CUDA out of memory occurred when warming up sampler with 1024 dummy requests. Please try "
            "lowering `max_num_seqs` or `gpu_memory_utilization` when initializing the engine.",
            "CUDAOutOfMemory",
            "warming up with 1,024 requests",
            {"requests": 1024},
            id="out of memory in the sampler's warm-up",
        ),
        pytest.param(
            "0.10.0",
            "RuntimeError: CUDA error: CUDA driver version is insufficient for CUDA runtime version",
            "DriverUnavailable",
            "CUDA driver version is insufficient for CUDA runtime version",
            {},
            id="a driver that is too old",
        ),
        pytest.param(
            "0.15.0",
            "ERROR 03-02 19:49:00 [multiproc_executor.py:783] RuntimeError: Unexpected error from "
            "cudaGetDeviceCount(). Did you run some cuda functions before calling "
            "NumCudaDevices() that might have already set an error? "
            "Error 802: system not yet initialized",
            "DriverUnavailable",
            "Error 802: system not yet initialized",
            {},
            id="the fabric manager does not run",
        ),
        pytest.param(
            "0.32.0",
            "RuntimeError: Failed to infer device type, please set the environment variable `VLLM_LOGGING_LEVEL=DEBUG`",
            "DriverUnavailable",
            "Failed to infer device type",
            {},
            id="no device at all",
        ),
        pytest.param(
            "0.32.0",
            "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4 GPU "
            "has compute capability 7.5.",
            "GPUTypeMismatch",
            "Bfloat16 is only supported on GPUs with compute capability of at least 8.0",
            {},
            id="an old card",
        ),
        pytest.param(
            "0.32.0",
            "OSError: [Errno 28] No space left on device: '/tmp/vllm'",
            "DiskFull",
            "A volume of the pod is full.",
            {},
            id="a full disk",
        ),
        pytest.param(
            "0.32.0",
            "api_server.py: error: unrecognized arguments: --no-such-option",
            "InvalidLaunchSpec",
            "vLLM refused its arguments: unrecognized arguments: --no-such-option.",
            {},
            id="an unknown option",
        ),
        pytest.param(
            "0.32.0",
            "  Value error, User-specified max_model_len (999999) is greater than the derived max_model_len "
            "(max_position_embeddings=2048.0 or model_max_length=None in model's config.json). To allow overriding "
            "this maximum, set the env var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1. " + "It goes on for long. " * 50,
            "InvalidLaunchSpec",
            "or model_max_length=None in model's config.json).",
            {},
            id="a refused configuration",
        ),
        pytest.param(
            "0.32.0",
            "ModuleNotFoundError: No module named 'vllm'",
            "EngineMissing",
            "has no module vllm",
            {},
            id="no vLLM at all",
        ),
    ],
)
def test_last_lines_become_a_reason(
    version: str, line: str, reason: str, words: str, details: dict[str, Any]
) -> None:
    found = explain(line, version=version)
    assert found.reason == reason
    assert words in found.message
    assert found.message.endswith(".")
    assert found.details is not None
    assert details.items() <= found.details.items()


def test_the_root_cause_wins_over_later_lines() -> None:
    found = explain(
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.00 GiB. GPU 0 has a total capacity of "
        "2.00 GiB of which 0 bytes is free.",
        "OSError: [Errno 28] No space left on device",
    )
    assert found.reason == "CUDAOutOfMemory"


def test_an_unknown_end_says_what_stood_there() -> None:
    found = explain("(Worker pid=3) ERROR 01-01 00:00:00 [w.py:1] KeyError: 'rope_scaling'", returncode=1)
    assert found.reason == "EngineExited"
    assert found.message == "vLLM exited with code 1 while loading the weights: KeyError: 'rope_scaling'."


def test_a_silent_end_says_how_it_ended() -> None:
    found = classify_exit([], -9, "0.32.0", "Serving")
    assert found.message == "vLLM was ended by SIGKILL (often the container's memory limit) while serving."
    assert found.details == {"stage": "Serving", "returnCode": -9}


@pytest.mark.parametrize(
    ("seen", "serving", "stage"),
    [
        pytest.param((), False, "Loading", id="nothing was said yet"),
        pytest.param(("weights",), False, "Profiling", id="weights are there"),
        pytest.param(("load_time",), False, "Profiling", id="weights are there on a CPU"),
        pytest.param(("weights", "kv_available"), False, "Warming", id="the cache is sized"),
        pytest.param(("weights", "kv_tokens"), True, "Serving", id="it served"),
    ],
)
def test_the_stage_follows_the_log(seen: tuple[str, ...], serving: bool, stage: str) -> None:
    assert stage_of(seen, serving) == stage
    assert stage in STAGES


def test_the_table_uses_documented_reasons_only() -> None:
    assert {row["reason"] for row in table("exit_causes")} <= set(TERMINATION_REASONS)


@given(st.lists(st.text(max_size=100)), st.integers(-64, 255), st.sampled_from(sorted(STAGES)))
def test_any_end_has_a_documented_reason(lines: list[str], returncode: int, stage: str) -> None:
    found = classify_exit(lines, returncode, "0.32.0", stage)
    assert found.reason in TERMINATION_REASONS
    assert Termination.from_json(found.to_line()).reason == found.reason
