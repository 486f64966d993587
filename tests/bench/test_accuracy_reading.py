"""Rows as people write them: numbers, dtypes, methods and drafts that no table of the engine spells like that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.accuracy import values
from bench.accuracy.assumed_layout import assumed_layout
from bench.accuracy.case import Case
from bench.accuracy.launch import chooses_length, draft_method, draft_settings, launch_options
from bench.accuracy.models import ModelFolder
from bench.accuracy.prediction import Answer, answer
from bench.accuracy.release_dates import release_of_month
from tests.bench.test_memory_accuracy import ROW
from tests.model.support import MODELS

FOLDER = ModelFolder(MODELS)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        pytest.param(4096, 4096, id="a number"),
        pytest.param("32k", 32000, id="thousands"),
        pytest.param("32K", 32768, id="binary thousands"),
        pytest.param("10GiB", 10 * 2**30, id="binary bytes"),
        pytest.param("2.5k", 2500, id="a fraction of thousands"),
        pytest.param("8,192", 8192, id="with a comma"),
        pytest.param("auto", None, id="a word"),
        pytest.param(-1, None, id="below zero"),
        pytest.param(True, None, id="a flag"),
    ],
)
def test_whole_numbers(text: Any, number: int | None) -> None:
    assert values.whole(text) == number


@pytest.mark.parametrize(
    ("text", "share"),
    [
        pytest.param(0.9, 0.9, id="a share"),
        pytest.param(".85", 0.85, id="without a zero"),
        pytest.param("90%", 0.9, id="in percent"),
        pytest.param(90, 0.9, id="in percent without the sign"),
        pytest.param(0, None, id="nothing"),
        pytest.param(1000, None, id="too much"),
    ],
)
def test_shares(text: Any, share: float | None) -> None:
    assert values.share(text) == share


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        pytest.param("half", "float16", id="half"),
        pytest.param("torch.bfloat16", "bfloat16", id="as torch prints it"),
        pytest.param("fp8", "auto", id="not a dtype to run in"),
        pytest.param(None, "auto", id="not stated"),
    ],
)
def test_dtypes(text: Any, kind: str) -> None:
    assert values.dtype(text) == kind


def test_limits_of_items_in_both_spellings() -> None:
    assert values.limits("image=4,video=0") == (("image", 4), ("video", 0))
    assert values.limits({"image": {"count": 2}, "audio": 1}) == (("audio", 1), ("image", 2))
    assert values.limits(3) == ()


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        pytest.param(
            "vllm serve m -tp 2 --no-enable-prefix-caching",
            {"tensor_parallel_size": 2, "enable_prefix_caching": False},
            id="short names and negations",
        ),
        pytest.param(
            "llm = LLM(model='m', max_model_len=8192, dtype=\"half\", enforce_eager=True)",
            {"max_model_len": 8192, "dtype": "half", "enforce_eager": True},
            id="a call of the class",
        ),
        pytest.param("vllm serve m --max-model-len -1", {"max_model_len": -1}, id="a negative number"),
    ],
)
def test_commands(command: str, expected: dict[str, Any]) -> None:
    options = launch_options(Case({**ROW, "cmd": command}))
    assert {name: options.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("options", "method"),
    [
        pytest.param({"speculative_config": {"model": "a/b-EAGLE3-c"}}, "eagle3", id="by the draft's name"),
        pytest.param(
            {"speculative_config": {"model": "yuhuili/EAGLE-LLaMA3"}}, "eagle", id="the first EAGLE"
        ),
        pytest.param(
            {"speculative_config": {"method": "deepseek_mtp"}}, "mtp", id="older names of one method"
        ),
        pytest.param({"speculative_model": "[ngram]"}, "ngram", id="an option of its own"),
        pytest.param({"speculative_config_method": "dflash"}, "dflash", id="with dots"),
        pytest.param({"speculative_config": {"model": "a/b"}}, "draft_model", id="any other model"),
    ],
)
def test_ways_to_guess_tokens(options: dict[str, Any], method: str) -> None:
    assert draft_method(draft_settings(options)) == method


@pytest.mark.parametrize(
    ("method", "model_id", "said"),
    [
        pytest.param("awq_marlin", "a/b", "AWQ in groups of 128", id="the method decides"),
        pytest.param("compressed-tensors", "a/b-NVFP4", "NVFP4 everywhere but in the head", id="else the id"),
        pytest.param("FP8 block-scaled", "a/b", "FP8 in blocks of 128 x 128", id="words around it"),
        pytest.param("gguf", "a/b-FP8", "4-bit integers in groups of 128", id="a container of 4 bits"),
    ],
)
def test_usual_layouts(method: str, model_id: str, said: str) -> None:
    assert assumed_layout(method, model_id)[1] == said


def test_months_decide_on_releases() -> None:
    assert release_of_month(Case({**ROW, "note": "June 2025 comment"})) == ("0.9.1", "Jun 2025")
    assert release_of_month(Case({**ROW, "note": "in May"})) is None
    assert release_of_month(Case({**ROW, "note": "May 2020"})) is None


def ask(**changes: Any) -> Answer:
    return answer(Case({**ROW, **changes}), FOLDER)


def test_a_release_that_is_not_one_counts_as_not_stated() -> None:
    assert any("names no release" in said for said in ask(vllm_version="nightly").assumed)


def test_a_plain_checkpoint_of_a_quantised_row_is_read_in_the_usual_layout() -> None:
    plain, packed = ask(), ask(quantization="awq")
    assert packed.predicted["weights_gib"] < 0.45 * plain.predicted["weights_gib"]
    assert any("AWQ" in said for said in packed.assumed)


def test_formats_of_the_cache_that_a_release_does_not_know_are_assumed() -> None:
    row = ask(kv_cache_dtype="q8_0")
    assert row.predicted["kv_tokens"] == pytest.approx(2 * ask().predicted["kv_tokens"], rel=0.01)
    assert any("does not know 'q8_0'" in said for said in row.assumed)
    assert ask(kv_cache_dtype="fp16").predicted == ask().predicted


def test_a_context_beyond_the_models_limit_is_taken_as_overridden() -> None:
    row = ask(max_model_len=200_000)
    assert row.predicted["verdict"] == "Fits"
    assert any("overridden" in said for said in row.assumed)


def test_the_engine_may_choose_the_context() -> None:
    small = {"gpu_name": "RTX 3090", "max_concurrency_len": None, "max_concurrency": None}
    assert ask(**small, max_model_len=131072).predicted["verdict"] == "DoesNotFit"
    assert ask(**small, max_model_len=-1).predicted["verdict"] != "DoesNotFit"
    assert chooses_length(Case({**ROW, "max_model_len": None, "cmd": "vllm serve m --max-model-len auto"}))


def test_unknown_cards_take_their_memory_from_the_row() -> None:
    named = ask(gpu_name="a card that nobody makes", total_gpu_memory_gib=40.0)
    free = ask(gpu_name="a card that nobody makes", free_gpu_memory_gib=39.5)
    assert named.unanswered is None
    assert free.predicted["kv_tokens"] == named.predicted["kv_tokens"]
    assert ask(gpu_name="a card that nobody makes").unanswered is not None


def test_graphs_are_counted_as_the_command_says() -> None:
    newer = {"vllm_version": "0.21.0"}
    none, few, all_ = (
        ask(**newer, other_flags=flags).predicted["kv_available_gib"]
        for flags in (
            {"compilation_config": '{"cudagraph_mode": "NONE"}'},
            {"compilation_config": {"cudagraph_capture_sizes": [1, 2, 4]}},
            {},
        )
    )
    assert none > few > all_


def test_bytes_of_a_checkpoint_hold_an_unknown_architecture_to_them(tmp_path: Path) -> None:
    config = json.loads((MODELS / "Qwen--Qwen3-0.6B" / "config.json").read_text(encoding="utf-8"))
    folder = tmp_path / "a--b"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["Foo"], "model_type": "foo"}))
    (folder / "checkpoint.json").write_text(json.dumps({"total_size_bytes": 3 * 2**30}))
    row = answer(Case({**ROW, "model_id": "a/b"}), ModelFolder(tmp_path))
    assert row.predicted["weights_gib"] == pytest.approx(3.0, rel=0.05)
    assert any("not described tensor by tensor" in said for said in row.assumed)


def test_several_gpus_without_a_word_about_them_share_the_model() -> None:
    row = {"gpu_count": 2, "tensor_parallel_size": None, "cmd": None, "cmd_complete": None}
    assert ask(**row).predicted["weights_gib"] == pytest.approx(ask().predicted["weights_gib"] / 2, rel=0.01)
    assert ask(**{**row, "cmd_complete": True}).predicted == ask().predicted
