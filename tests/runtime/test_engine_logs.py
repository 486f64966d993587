"""Figures out of vLLM's log: lines as public logs of many versions have them, of one and of several ranks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowage_runtime.engine_facts import facts_from_log, with_metrics
from stowage_runtime.engine_logs import EngineLog
from stowage_runtime.prometheus_text import parse_exposition
from stowage_runtime.tables import rows_for, table, version_tuple
from stowage_runtime.utilization import UtilizationWindow

GIB = 1024**3


def figures(version: str, *lines: str) -> dict[str, float]:
    log = EngineLog(version)
    for line in lines:
        log.feed(line)
    return log.figures()


@pytest.mark.parametrize(
    ("version", "line", "name", "value"),
    [
        pytest.param(
            "0.8.2",
            "(VllmWorker rank=1 pid=1005427) INFO 03-03 20:36:03 [model_runner.py:1117] "
            "Model loading took 15.4137 GB and 9.487761 seconds",
            "weights_bytes",
            15.4137 * GIB,
            id="0.8.2 writes GB for GiB",
        ),
        pytest.param(
            "0.10.2",
            "(EngineCore_DP0 pid=212) INFO 10-06 12:00:09 [gpu_model_runner.py:2370] "
            "Model loading took 4.2117 GiB and 5.31 seconds",
            "weights_bytes",
            4.2117 * GIB,
            id="0.10 has four decimals",
        ),
        pytest.param(
            "0.28.0",
            "(EngineCore pid=326) INFO 10-06 17:00:11 [model_runner.py:407] "
            "Model loading took 15.0 GiB memory and 5.420225 seconds",
            "weights_bytes",
            15.0 * GIB,
            id="0.28 says memory and drops zeros",
        ),
        pytest.param(
            "0.15.1",
            "(Worker_TP0 pid=448) INFO 08-14 14:07:22 [gpu_worker.py:563] Available KV cache memory: -1.2 GiB",
            "kv_cache_bytes",
            -1.2 * GIB,
            id="available memory may be negative",
        ),
        pytest.param(
            "0.11.0",
            "(EngineCore_DP0 pid=1944) INFO 09-24 20:53:41 [kv_cache_utils.py:864] GPU KV cache size: 238,208 tokens",
            "kv_cache_tokens",
            238_208,
            id="tokens on a line of their own",
        ),
        pytest.param(
            "0.11.0",
            "(EngineCore_DP0 pid=1944) INFO 09-24 20:53:41 [kv_cache_utils.py:868] "
            "Maximum concurrency for 32,768 tokens per request: 7.27x",
            "max_concurrency",
            7.27,
            id="concurrency on a line of its own",
        ),
        pytest.param(
            "0.28.0",
            "(EngineCore pid=326) INFO 10-06 17:00:33 [kv_cache_utils.py:2464] GPU KV cache size: 460,496 tokens, "
            "Maximum concurrency for 131,072 tokens per request: 3.51x",
            "kv_cache_tokens",
            460_496,
            id="tokens before concurrency since 0.28",
        ),
        pytest.param(
            "0.32.0",
            "(EngineCore pid=2120) INFO 11-22 03:35:07 [kv_cache_utils.py:2327] CPU KV cache size: 524,288 tokens, "
            "Maximum concurrency for 1,024 tokens per request: 512.00x",
            "max_concurrency",
            512.0,
            id="the CPU build",
        ),
        pytest.param(
            "0.32.0",
            "(EngineCore pid=7) INFO 11-22 03:35:07 [kv_cache_utils.py:2327] GPU + host KV cache size: 1,024 tokens, "
            "Maximum concurrency for 1,024 tokens per request: 1.00x",
            "kv_cache_tokens",
            1024,
            id="a pool with host memory",
        ),
        pytest.param(
            "0.8.5",
            "(VllmWorker rank=0 pid=2445155) INFO 05-10 16:00:15 [gpu_model_runner.py:1686] "
            "Graph capturing finished in 112 secs, took 0.95 GiB",
            "cuda_graph_bytes",
            0.95 * GIB,
            id="graphs of 0.8",
        ),
        pytest.param(
            "0.21.0",
            "(Worker_TP1 pid=148) INFO 05-14 00:04:16 [gpu_model_runner.py:6143] "
            "Estimated CUDA graph memory: 0.17 GiB total",
            "cuda_graph_estimate_bytes",
            0.17 * GIB,
            id="the estimate of graphs",
        ),
        pytest.param(
            "0.28.0",
            "(Worker_TP0_EP0 pid=1159) INFO 09-04 11:00:17 [gpu_worker.py:792] CUDA graph pool memory: "
            "0.25 GiB (actual), 0.38 GiB (estimated), difference: 0.12 GiB (50.0%).",
            "cuda_graph_bytes",
            0.25 * GIB,
            id="graphs against their estimate",
        ),
        pytest.param(
            "0.11.0",
            "(Worker_TP2_EP2 pid=2080) INFO 09-24 20:54:35 [gpu_worker.py:391] Free memory on device "
            "(43.93/44.42 GiB) on startup. Desired GPU memory utilization is (0.9, 39.98 GiB). Actual usage is "
            "27.72 GiB for weight, 1.4 GiB for peak activation, 0.21 GiB for non-torch memory, and 3.45 GiB for "
            "CUDAGraph memory. Replace gpu_memory_utilization config with `--kv-cache-memory=7564378828` to fit",
            "non_torch_bytes",
            0.21 * GIB,
            id="the summary before 0.27",
        ),
        pytest.param(
            "0.28.0",
            "(EngineCore pid=326) INFO 10-06 17:00:41 [gpu_worker.py:955] Free memory on device (78.84/79.25 GiB) on "
            "startup. Desired GPU memory utilization is (0.92, 72.91 GiB). Actual usage is 15.26 GiB for consumed "
            "memory (weights + non-torch), 1.44 GiB for peak activation, and 0.23 GiB for CUDAGraph memory.",
            "activation_bytes",
            1.44 * GIB,
            id="the summary since 0.27",
        ),
        pytest.param(
            "0.6.6",
            "INFO 01-11 15:51:18 llm_engine.py:275] # GPU blocks: 229, # CPU blocks: 512",
            "num_gpu_blocks",
            229,
            id="blocks of engine V0",
        ),
        pytest.param(
            "0.30.0",
            "(EngineCore pid=7) INFO 01-01 00:00:00 [config.py:1] Setting attention block size to 544 tokens to "
            "ensure that attention page size is >= mamba page size.",
            "block_size",
            544,
            id="the block size of a hybrid model",
        ),
        pytest.param(
            "0.32.0",
            "\x1b[0;36m(EngineCore pid=7)\x1b[0;0m INFO 01-01 00:00:00 [x.py:1] Model loading took 2.5 GiB memory and",
            "weights_bytes",
            2.5 * GIB,
            id="colours do not matter",
        ),
    ],
)
def test_a_line_gives_its_figure(version: str, line: str, name: str, value: float) -> None:
    assert figures(version, line)[name] == pytest.approx(value)


def test_the_tightest_rank_counts() -> None:
    found = figures(
        "0.28.0",
        "(Worker_TP0 pid=1) INFO 1 [a.py:1] Available KV cache memory: 6.87 GiB",
        "(Worker_TP1 pid=2) INFO 1 [a.py:1] Available KV cache memory: 7.01 GiB",
        "(Worker_TP0 pid=1) INFO 1 [a.py:1] Model loading took 10.5 GiB memory and 1.0 seconds",
        "(Worker_TP1 pid=2) INFO 1 [a.py:1] Model loading took 10.25 GiB memory and 1.0 seconds",
    )
    assert found["kv_cache_bytes"] == 6.87 * GIB
    assert found["weights_bytes"] == 10.5 * GIB


def test_one_process_that_prints_for_every_rank_gives_the_smallest() -> None:
    found = figures(
        "0.10.0",
        "(EngineCore_0 pid=1) INFO 1 [kv_cache_utils.py:1] GPU KV cache size: 3,644,816 tokens",
        "(EngineCore_0 pid=1) INFO 1 [kv_cache_utils.py:1] GPU KV cache size: 3,600,000 tokens",
        "(EngineCore_0 pid=1) INFO 1 [kv_cache_utils.py:1] GPU KV cache size: 3,650,000 tokens",
    )
    assert found["kv_cache_tokens"] == 3_600_000


def test_data_parallel_engines_add_up() -> None:
    found = figures(
        "0.32.0",
        "(EngineCore_DP0 pid=1) INFO 1 [k.py:1] GPU KV cache size: 1,000 tokens, Maximum concurrency for 10 tokens "
        "per request: 100.00x",
        "(EngineCore_DP1 pid=2) INFO 1 [k.py:1] GPU KV cache size: 900 tokens, Maximum concurrency for 10 tokens "
        "per request: 90.00x",
    )
    assert found["kv_cache_tokens"] == 1900
    assert found["max_concurrency"] == 190


def test_the_last_graph_capture_counts() -> None:
    line = "(EngineCore pid=1) INFO 1 [m.py:1] Graph capturing finished in 2 secs, took {} GiB"
    assert figures("0.32.0", line.format("0.37"), line.format("0.25"))["cuda_graph_bytes"] == 0.25 * GIB


def test_what_is_not_torch_is_taken_apart_rank_by_rank() -> None:
    summary = (
        "Actual usage is {} GiB for consumed memory (weights + non-torch), 1.0 GiB for peak activation, "
        "and 0.2 GiB for CUDAGraph memory."
    )
    found = figures(
        "0.28.0",
        "(Worker_TP0 pid=1) Model loading took 10.0 GiB memory and 1.0 seconds",
        "(Worker_TP1 pid=2) Model loading took 9.0 GiB memory and 1.0 seconds",
        "(Worker_TP0 pid=1) " + summary.format("10.5"),
        "(Worker_TP1 pid=2) " + summary.format("9.75"),
    )
    assert found["non_torch_bytes"] == 0.75 * GIB


def test_figures_become_facts() -> None:
    log = EngineLog("0.32.0")
    log.feed("(EngineCore pid=1) Model loading took 10.0 GiB memory and 1.0 seconds")
    log.feed("(EngineCore pid=1) Graph capturing finished in 2 secs, took -0.19 GiB")
    facts = facts_from_log(log.figures(), log.lines_seen())
    assert facts.weights_bytes == 10 * GIB
    assert facts.cuda_graph_bytes == 0
    assert facts.kv_cache_tokens is None
    assert facts.log_lines_seen == ("weights", "graph_actual")


@given(st.text(max_size=200))
def test_any_other_line_gives_nothing(line: str) -> None:
    assert figures("0.32.0", line) == {}


def test_a_line_of_another_version_is_not_read() -> None:
    line = "INFO 01-11 15:51:18 llm_engine.py:275] # GPU blocks: 229, # CPU blocks: 512"
    assert figures("0.32.0", line) == {}


@pytest.mark.parametrize("name", ["log_lines", "exit_causes"])
def test_every_row_has_a_source_and_a_pattern_that_compiles(name: str) -> None:
    for row in table(name):
        assert row["source"]
        re.compile(row["pattern"])
        for bound in ("since", "before"):
            assert row[bound] is None or re.fullmatch(r"\d+\.\d+\.\d+", row[bound])


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        pytest.param("0.32.0+cpu", (0, 32, 0), id="a local version"),
        pytest.param("0.14.0rc1.dev2", (0, 14, 0), id="a candidate"),
        pytest.param("new", (), id="no version"),
    ],
)
def test_versions_are_compared_by_their_numbers(text: str, numbers: tuple[int, ...]) -> None:
    assert version_tuple(text) == numbers


def test_the_tables_know_the_default_version() -> None:
    assert {row["name"] for row in rows_for("log_lines", "0.32.0")} >= {
        "weights",
        "kv_tokens",
        "graph_actual",
    }


def test_a_whole_recorded_start_gives_its_figures() -> None:
    folder = Path(__file__).with_name("fixtures")
    log = EngineLog("0.32.0")
    for line in (folder / "vllm-0.32.0-cpu.log").read_text().splitlines():
        log.feed(line)
    facts = facts_from_log(log.figures(), log.lines_seen())
    assert (facts.kv_cache_tokens, facts.max_concurrency) == (524_288, 512.0)
    exposition = parse_exposition((folder / "vllm-0.32.0-cpu.metrics").read_text())
    measured = with_metrics(facts, exposition)
    assert (measured.block_size, measured.num_gpu_blocks, measured.kv_cache_tokens) == (128, 4096, 524_288)
    assert measured.kv_cache_bytes == GIB
    assert UtilizationWindow().add(exposition, 0.0) is not None
