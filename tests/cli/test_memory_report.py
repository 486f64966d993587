"""`stowage memory` as people read it: parts that add up, widths that are kept, and answers that name what to do."""

from __future__ import annotations

import json
import re

import pytest

from stowage.commands.memory.options import MemoryOptions
from stowage.commands.memory.question import MemoryQuestion, read_question
from stowage.commands.memory.table import budget_rows, rows_beside
from stowage.memory.budget import rank_ledgers, tightest
from tests.cli.support import stowage
from tests.model.support import MODELS

SMALL = str(MODELS / "meta-llama--Llama-3.1-8B-Instruct")
LARGE = str(MODELS / "meta-llama--Meta-Llama-3.1-70B")
EXPERTS = str(MODELS / "Qwen--Qwen3-30B-A3B")


def lines_of(*arguments: str, columns: int | None = None) -> list[str]:
    return stowage("memory", *arguments, columns=columns)[1].splitlines()


@pytest.mark.parametrize("version", ["0.6.6", "0.8.5", "0.9.2", "0.11.0", "0.19.0", "0.26.0", "0.32.0"])
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(MemoryOptions(model=SMALL, gpu="L4"), id="a context that is too long"),
        pytest.param(MemoryOptions(model=SMALL, gpu="H100", max_model_len=8192), id="a shape that fits"),
        pytest.param(MemoryOptions(model=LARGE, gpu="L40S", tensor_parallel_size=2), id="too few GPUs"),
        pytest.param(
            MemoryOptions(model=EXPERTS, gpu="H100", enforce_eager=True), id="experts without graphs"
        ),
        pytest.param(
            MemoryOptions(model=SMALL, gpu="L40S", kv_cache_memory_bytes=2**31, max_model_len=4096),
            id="a pinned cache",
        ),
    ],
)
def test_the_parts_add_up_to_the_budget_and_to_the_total(options: MemoryOptions, version: str) -> None:
    question = read_question(MemoryOptions(**{**vars(options), "engine_version": version}))
    assert isinstance(question, MemoryQuestion)
    found = rank_ledgers(question.profile, question.shape, question.device, question.version)
    assert isinstance(found, tuple)
    entry = tightest(found)
    *counted, last = budget_rows(question, entry)
    if entry.kv_cache_pinned:
        counted.append(last)
    else:
        assert last[0] == "budget"
        assert sum(amount for _, amount, _ in counted) == pytest.approx(last[1], abs=2**16)
    *beside, total = rows_beside(entry)
    assert sum(amount for _, amount, _ in (*counted, *beside)) == pytest.approx(total[1], abs=2**16)
    assert beside[-1][0] == "free"


@pytest.mark.parametrize("columns", [80, 100, 118])
@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("--model", LARGE, "--gpu", "H100", "-tp", "4"), id="a shape that fits"),
        pytest.param(("--model", LARGE, "--gpu", "L4", "-tp", "4"), id="a shape that does not fit"),
        pytest.param(
            (
                *("--model", SMALL, "--gpu", "L4", "--what-if", "kv-cache-dtype=fp8,max-model-len=65536"),
                *("--what-if", "tensor-parallel-size=8,kv-cache-dtype=fp8,max-model-len=131072"),
            ),
            id="what-ifs",
        ),
    ],
)
def test_what_is_printed_keeps_within_the_terminal(arguments: tuple[str, ...], columns: int) -> None:
    assert max(map(len, lines_of(*arguments, columns=columns))) <= columns


def test_what_would_fit_is_named_the_cheapest_first() -> None:
    out = "\n".join(lines_of("--model", SMALL, "--gpu", "RTX 4090", "--max-model-len", "65536"))
    offered = re.findall(r"^  - (\S+) (\S+): ", out, re.MULTILINE)
    order = ["max_model_len", "max_num_seqs", "tensor_parallel_size", "kv_cache_dtype"]
    names = [name for name, _ in offered]
    assert names == sorted(names, key=order.index)
    assert {"max_model_len", "tensor_parallel_size", "kv_cache_dtype"} <= set(names)
    for name, value in offered:
        option = f"--{name.replace('_', '-')}"
        code, _, _ = stowage(
            *("memory", "--model", SMALL, "--gpu", "RTX 4090", "--max-model-len", "65536"),
            *(option, value.replace(",", "")),
        )
        assert code == 0, name


def test_where_the_cache_outweighs_the_weights_is_always_said() -> None:
    for gpu in ("L4", "H100"):
        arguments = ("--model", SMALL, "--gpu", gpu, "--max-model-len", "16384")
        assert any(
            line == "KV cache outweighs weights from 122,789 tokens on, which is 7.5 requests of 16,384."
            for line in lines_of(*arguments)
        )
        document = json.loads(stowage("memory", *arguments, "-o", "json")[1])
        assert document["kv_outweighs_weights_from_tokens"] == 122_789
        assert document["kv_outweighs_weights_from_requests"] == pytest.approx(7.4944, abs=1e-3)


def test_a_change_takes_the_defaults_of_what_it_changes_to() -> None:
    what_if = ("--what-if", "gpu=H100", "--what-if", "engine-version=0.11.0")
    document = json.loads(stowage("memory", "--model", SMALL, "--gpu", "L4", *what_if, "-o", "json")[1])
    for change, option in zip(document["what_if"], (("--gpu", "H100"), ("--gpu", "L4")), strict=True):
        version = ("--engine-version", "0.11.0") if "engine" in change["what_if"] else ()
        alone = json.loads(stowage("memory", "--model", SMALL, *option, *version, "-o", "json")[1])
        assert change["kv_tokens"] == alone["kv_tokens"]
        assert change["verdict"] == alone["verdict"]


def test_a_change_that_is_refused_says_why_below_the_table() -> None:
    lines = lines_of("--model", SMALL, "--gpu", "L4", "--what-if", "tensor-parallel-size=3")
    assert any("refused: InvalidParallelism" in line for line in lines)
    assert lines[-1].startswith("- tensor-parallel-size=3: TP 3 does not divide the 32 attention heads.")


def test_a_gpu_that_the_catalog_lacks_is_sized_by_what_is_said_of_it() -> None:
    mine = (
        "--model",
        SMALL,
        "--gpu",
        "NVIDIA-Next",
        "--total-memory-gib",
        "79.18",
        "--max-model-len",
        "8192",
    )
    code, out, _ = stowage("memory", *mine, "--compute-capability", "9.0", "-o", "yaml")
    assert code == 0
    assert "gpu: NVIDIA-Next" in out
    code, _, err = stowage("memory", *mine)
    assert code == 2
    assert "state --total-memory-gib and --compute-capability" in err
    assert "'9'; write it as NVIDIA does" in stowage("memory", *mine, "--compute-capability", "9")[2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(
            ("--max-model-len", "-5"), "--max-model-len is -5; it must be at least 1", id="a length"
        ),
        pytest.param(("--tensor-parallel-size", "0"), "--tensor-parallel-size is 0", id="no ranks"),
        pytest.param(
            ("--what-if", "max-model-len=-5"), "'-5' is not a whole number of at least 1", id="less"
        ),
        pytest.param(("--what-if", "max-model-length=5"), "Write max-model-len=VALUE", id="a misspelt name"),
        pytest.param(("--what-if", "enforce-eager=no"), "'no' is not true or false", id="a switch"),
        pytest.param(("--what-if", "gpu=H1000"), "--what-if gpu=H1000: The catalog has no GPU", id="a GPU"),
    ],
)
def test_bad_input_names_the_option_the_value_and_what_to_do(arguments: tuple[str, ...], words: str) -> None:
    code, out, err = stowage("memory", "--model", SMALL, "--gpu", "L4", *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "folder",
    [
        pytest.param("meta-llama--Llama-3.1-8B-Instruct", id="every layer keeps all"),
        pytest.param("google--gemma-3-27b-it", id="most layers keep a window"),
        pytest.param("Qwen--Qwen3-Next-80B-A3B-Instruct", id="most layers keep a state"),
    ],
)
def test_the_requests_that_outweigh_the_weights_take_as_much_as_requests_do(folder: str) -> None:
    arguments = ("--model", str(MODELS / folder), "--gpu", "H200", "-tp", "4", "--max-model-len", "8192")
    document = json.loads(stowage("memory", *arguments, "-o", "json")[1])
    each = document["kv_available_gib"] / document["max_concurrency"]
    outweighing = document["kv_outweighs_weights_from_requests"]
    assert outweighing * each == pytest.approx(document["weights_gib"], rel=0.04)
    assert document["kv_outweighs_weights_from_tokens"] == pytest.approx(outweighing * 8192, abs=1)
