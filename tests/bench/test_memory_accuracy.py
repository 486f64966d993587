"""The bench that scores predictions: reading rows, finding cards, reading commands, counting what has no answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import memory_accuracy
from bench.accuracy.case import Case, read_cases
from bench.accuracy.gpu_names import find_card
from bench.accuracy.launch import launch_options, parse_command, uses_offline_entry_point
from bench.accuracy.score import percentile
from tests.model.support import MODELS

ROW: dict[str, Any] = {
    "id": "one",
    "vllm_version": "0.17.1",
    "engine": "V1",
    "model_id": "meta-llama/Llama-3.1-8B-Instruct",
    "gpu_name": "A100 80GB",
    "tensor_parallel_size": 1,
    "max_model_len": 32768,
    "cmd": "vllm serve meta-llama/Llama-3.1-8B-Instruct --max-model-len 32768",
    "cmd_complete": True,
    "weights_gib": 14.99,
    "kv_available_gib": 55.79,
    "kv_tokens": 457024,
    "max_concurrency": 13.95,
    "max_concurrency_len": 32768,
    "outcome": "started",
}


@pytest.mark.parametrize(
    ("name", "product"),
    [
        pytest.param("A100 80GB", "NVIDIA-A100-SXM4-80GB", id="a size decides between cards of one name"),
        pytest.param("A100-40G", "NVIDIA-A100-SXM4-40GB", id="a size written with a dash"),
        pytest.param(
            "NVIDIA_H100_80GB_HBM3", "NVIDIA-H100-80GB-HBM3", id="the driver's name with underscores"
        ),
        pytest.param("NVIDIA A10G", "NVIDIA-A10G", id="a letter after a number is not a size"),
        pytest.param("5060TI 16G", "NVIDIA-GeForce-RTX-5060-Ti", id="a suffix written without a space"),
        pytest.param("NVIDIA GB10 (DGX Spark)", "NVIDIA-GB10", id="a machine's name in brackets"),
        pytest.param("RTX 5070 Ti + RTX 5090", "NVIDIA-GeForce-RTX-5070-Ti", id="of several the smallest"),
    ],
)
def test_cards_are_found_by_what_people_write(name: str, product: str) -> None:
    card = find_card(name)
    assert card is not None
    assert card.gpu.name == product


def test_a_name_that_two_sizes_share_does_not_decide_the_memory() -> None:
    assert (card := find_card("A100")) is not None
    assert not card.decided
    assert find_card("a card that nobody makes") is None


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        pytest.param(
            "vllm serve m --max-model-len 4096 --enforce-eager",
            {"max_model_len": "4096", "enforce_eager": True},
            id="a shell line",
        ),
        pytest.param("vllm serve m --max-model-len=4096", {"max_model_len": "4096"}, id="with equal signs"),
        pytest.param(
            "{'max_model_len': 4096, 'enforce_eager': True, 'model': '…/m'}",
            {"max_model_len": 4096, "enforce_eager": True, "model": "…/m"},
            id="a printed dictionary",
        ),
        pytest.param(
            "{'max_model_len': 4096, 'compilation_config': {'level': 3, 'cache",
            {"max_model_len": 4096},
            id="a dictionary that is cut off",
        ),
    ],
)
def test_commands_are_read_as_far_as_they_go(command: str, expected: dict[str, Any]) -> None:
    options = parse_command(command)
    assert {name: options.get(name) for name in expected} == expected


def test_other_flags_win_over_the_command_and_numbers_are_numbers() -> None:
    case = Case({**ROW, "other_flags": {"max_num_seqs": "8", "enable_lora": "True"}})
    options = launch_options(case)
    assert (options["max_num_seqs"], options["enable_lora"], options["max_model_len"]) == (8, True, 32768)
    assert not uses_offline_entry_point(case)
    assert uses_offline_entry_point(Case({**ROW, "cmd": "python -c 'LLM(\"m\")'"}))


@pytest.mark.parametrize(
    ("changes", "known", "core"),
    [
        pytest.param({}, True, True, id="a complete command"),
        pytest.param({"cmd_complete": None}, True, False, id="neither command nor limits"),
        pytest.param(
            {"cmd_complete": None, "gpu_memory_utilization": 0.9, "max_num_seqs": 8, "max_num_batched_tokens": 64},
            True, True, id="all three limits",
        ),
        pytest.param({"vllm_version": "0.17.2rc1.dev3+gabc"}, True, False, id="a development build"),
        pytest.param({"vllm_version": None}, True, False, id="no version"),
        pytest.param({"engine": "V0"}, True, False, id="the V0 engine"),
        pytest.param({"outcome": "oom"}, True, False, id="a start that failed"),
        pytest.param({}, False, False, id="a card whose memory is not certain"),
    ],
)  # fmt: skip
def test_core_rows_are_told_by_their_fields(changes: dict[str, Any], known: bool, core: bool) -> None:
    assert Case({**ROW, **changes}).is_core(known) is core


@pytest.mark.parametrize(
    ("changes", "tokens"),
    [
        pytest.param({}, 457113, id="concurrency times length first"),
        pytest.param({"max_concurrency": None}, 457024, id="else the printed number"),
        pytest.param(
            {"max_concurrency": None, "kv_tokens": None, "num_gpu_blocks": 10}, 160, id="else blocks"
        ),
        pytest.param({"max_concurrency": None, "kv_tokens": None}, None, id="else nothing"),
    ],
)
def test_measured_tokens(changes: dict[str, Any], tokens: int | None) -> None:
    assert Case({**ROW, **changes}).measured_kv_tokens == tokens


def test_every_case_is_answered_or_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        ROW,
        {**ROW, "id": "no-model", "model_id": "nobody/nothing"},
        {**ROW, "id": "no-card", "gpu_name": "a card that nobody makes"},
        {
            **ROW,
            "id": "too-long",
            "outcome": "kv-too-small",
            "gpu_name": "NVIDIA L4",
            "max_model_len": 131072,
        },
    ]
    cases, result = tmp_path / "cases.jsonl", tmp_path / "out.json"
    cases.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["--cases", str(cases), "--models", str(MODELS), "--json", str(result)]
    assert memory_accuracy.main(arguments) == 0
    assert "core" in capsys.readouterr().out
    document = json.loads(result.read_text())
    answers = {entry["id"]: entry for entry in document["cases"]}
    assert set(answers) == {row["id"] for row in rows}
    one = answers["one"]
    assert one["predicted"]["kv_tokens"] == pytest.approx(one["measured"]["kv_tokens"], rel=0.05)
    assert one["unanswered"] is None
    assert "no config.json for nobody/nothing" in answers["no-model"]["unanswered"]
    assert "not in the catalog" in answers["no-card"]["unanswered"]
    summary = document["summary"]["all"]
    assert set(summary["unanswered"]) == {"no-model", "no-card"}
    assert (summary["refusals_caught"], summary["refusals"], summary["wrongly_refused"]) == (1, 1, [])


def test_a_file_that_is_not_cases_is_refused_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text('{"id": "a"}\n\n[1]\n')
    with pytest.raises(ValueError, match="line 3"):
        read_cases(path)


def test_percentiles_are_interpolated() -> None:
    assert percentile([4.0, 1.0, 2.0, 3.0], 0.5) == 2.5
    assert percentile([1.0], 0.9) == 1.0
