"""`stowage memory`: the ledger of one shape on the command line."""

from __future__ import annotations

import json
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from stowage.commands import inspect as inspect_module
from stowage.commands.memory import command as memory_module
from tests.model.support import MODELS

LLAMA = str(MODELS / "meta-llama--Llama-3.1-8B-Instruct")
LLAMA_70B = str(MODELS / "meta-llama--Meta-Llama-3.1-70B")
ISSUE_KEYS = {
    "weights_gib",
    "activations_gib",
    "cuda_graphs_gib",
    "other_gib",
    "kv_available_gib",
    "kv_tokens",
    "max_concurrency",
    "fits",
    "reason",
}


def run(*arguments: str) -> Result:
    app = typer.Typer()
    memory_module.register(app)
    inspect_module.register(app)
    return CliRunner().invoke(app, ["memory", *arguments])


def answer(*arguments: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(run(*arguments, "-o", "json").output)
    return content


def test_a_shape_that_fits() -> None:
    arguments = ("--model", LLAMA, "--gpu", "NVIDIA-L4", "--max-model-len", "16384")
    assert run(*arguments).exit_code == 0
    document = answer(*arguments)
    assert document.keys() >= ISSUE_KEYS
    assert document["weights_gib"] == 14.9888
    assert (document["fits"], document["reason"], document["verdict"]) == (True, None, "Fits")
    assert document["kv_tokens"] == pytest.approx(34_750, rel=0.01)
    parts = ("weights_gib", "activations_gib", "cuda_graphs_gib", "other_gib", "kv_available_gib")
    assert sum(document[part] for part in parts) < document["total_gib"]


def test_a_shape_that_does_not_fit_ends_with_one() -> None:
    arguments = ("--model", LLAMA, "--gpu", "L4")
    assert run(*arguments).exit_code == 1
    document = answer(*arguments)
    assert (document["fits"], document["reason"]) == (False, "ContextTooLong")
    assert document["max_model_len"] == 131072


def test_the_table_shows_each_gpu() -> None:
    result = run(
        "--model",
        LLAMA_70B,
        "--gpu",
        "NVIDIA-A100-SXM4-80GB",
        "-tp",
        "2",
        "-pp",
        "2",
        "--max-model-len",
        "8192",
    )
    assert result.exit_code == 0
    for number in range(4):
        assert f"GPU {number}" in result.output
    for part in ("weights", "KV cache", "activations", "CUDA graphs", "Fits", "stage"):
        assert part in result.output


@pytest.mark.parametrize(
    ("option", "value", "key", "expected"),
    [
        pytest.param(
            "--engine-version", "0.11.0", "gpu_memory_utilization", 0.9, id="the release sets utilisation"
        ),
        pytest.param("--gpu-memory-utilization", "0.5", "budget_gib", 11.025, id="utilisation"),
        pytest.param("--max-num-seqs", "17", "max_num_seqs", 17, id="requests"),
        pytest.param("--max-num-batched-tokens", "4096", "max_num_batched_tokens", 4096, id="batched tokens"),
        pytest.param("--kv-cache-dtype", "fp8", "kv_bytes_per_token", 65_536, id="an fp8 cache"),
        pytest.param("--dtype", "float32", "kv_bytes_per_token", 262_144, id="a 32-bit run"),
        pytest.param("--total-memory-gib", "40", "total_gib", 40.0, id="a measured total"),
        pytest.param("--kv-cache-memory-bytes", str(2**30), "kv_available_gib", 1.0, id="a pinned cache"),
        pytest.param("--max-model-len", "100", "max_model_len", 100, id="the context"),
    ],
)
def test_options_reach_the_ledger(option: str, value: str, key: str, expected: Any) -> None:
    assert answer("--model", LLAMA, "--gpu", "NVIDIA-L4", option, value)[key] == expected


def test_eager_mode_has_no_graphs() -> None:
    assert answer("--model", LLAMA, "--gpu", "L4", "--enforce-eager")["cuda_graphs_gib"] == 0


def test_a_newer_release_is_noted() -> None:
    notes = answer("--model", LLAMA, "--gpu", "L4", "--engine-version", "0.99.0")["notes"]
    assert any("0.99.0" in note for note in notes)
    assert "Note:" in run("--model", LLAMA, "--gpu", "L4", "--engine-version", "0.99.0").output


def test_a_cpu_node_with_a_pinned_cache() -> None:
    tiny = str(MODELS / "Qwen--Qwen3-0.6B")
    pinned = ("--kv-cache-memory-bytes", str(2**30))
    common = ("--model", tiny, "--gpu", "CPU", "--total-memory-gib", "16", "--max-model-len", "1024")
    document = answer(*common, *pinned)
    assert (document["fits"], document["block_size"]) == (True, 128)
    assert run(*common, *pinned).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        pytest.param(("--model", LLAMA, "--gpu", "L4", "-tp", "3"), 1, "InvalidParallelism", id="TP 3"),
        pytest.param(("--model", LLAMA, "--gpu", "L5"), 2, "UnknownGPU", id="an unknown GPU"),
        pytest.param(
            ("--model", LLAMA, "--gpu", "CPU"), 2, "--total-memory-gib", id="a CPU node of unknown size"
        ),
        pytest.param(
            ("--model", LLAMA, "--gpu", "CPU", "--total-memory-gib", "64"),
            2,
            "PinConflict",
            id="no pinned KV on a CPU",
        ),
        pytest.param(
            ("--model", LLAMA, "--gpu", "L4", "--engine-version", "latest"),
            2,
            "not a vLLM release",
            id="no release",
        ),
        pytest.param(
            ("--model", LLAMA, "--gpu", "L4", "--total-memory-gib", "-1"), 2, "above 0", id="negative memory"
        ),
        pytest.param(
            ("--model", LLAMA, "--gpu", "L4", "--max-model-len", "0"), 2, "at least 1", id="no context"
        ),
        pytest.param(("--model", "nothing", "--gpu", "L4"), 2, "InvalidSpec", id="no such model"),
        pytest.param(("--gpu", "L4"), 2, "--model", id="no model at all"),
        pytest.param(
            ("--model", LLAMA, "--gpu", "L4", "--max-num-seqs", "many"),
            2,
            "--max-num-seqs",
            id="not a number",
        ),
        pytest.param(
            ("--model", LLAMA, "--gpu", "L4", "--kv-cache-dtype", "int2"),
            1,
            "UnsupportedDtype",
            id="a KV dtype",
        ),
    ],
)
def test_exit_codes(arguments: tuple[str, ...], code: int, words: str) -> None:
    result = run(*arguments)
    assert result.exit_code == code
    assert words in result.output
    assert "Traceback" not in result.output


def test_a_refused_shape_has_the_same_keys_in_json() -> None:
    document = answer("--model", LLAMA, "--gpu", "L4", "-tp", "3")
    assert document.keys() >= ISSUE_KEYS
    assert (document["fits"], document["reason"], document["weights_gib"]) == (
        False,
        "InvalidParallelism",
        None,
    )
    assert "TP 1, 2, 4" in document["message"]
