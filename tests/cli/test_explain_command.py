"""`stowage explain`, and what `stowage plan` answers besides the plan: what-ifs, comparisons, prices and pictures."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from stowage.commands.plan import question as plan_question
from tests.cli.support import make_files, manifest, run, stowage, write
from tests.hardware.objects import gpu_node
from tests.planning.builders import llama_config, mixed_nodes

WORKLOAD = {"promptTokens": {"mean": 2000}, "outputTokens": {"mean": 200}, "concurrencyPerReplica": 16}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return make_files(tmp_path, workload=WORKLOAD)


def saved(files: Path, name: str, *more: str) -> Path:
    path = files / name
    path.write_text(run(files, "plan", "-o", "json", *more)[1])
    return path


def test_the_explanation_has_alternatives_rejections_and_levers(files: Path) -> None:
    write(files / "nodes.yaml", *mixed_nodes(), gpu_node("small", "NVIDIA-GeForce-RTX-3070", 1))
    code, out, _ = run(files, "explain")
    assert code == 0
    for title in ("Ranked, the best first", "Rejected, each with its first", "Levers, each alone", "Notes"):
        assert title in out
    ranked = out.partition("Ranked")[2].partition("\n\n")[0].splitlines()[2:]
    assert ranked[0].endswith("; taken")
    assert all("per hour" in line or "hold" in line or "fits only" in line for line in ranked[1:])
    assert "InsufficientMemory" in out.partition("Rejected")[2].partition("\n\n")[0]
    assert "KV capacity ×4" in out
    assert "prefix cache hits 50% assumes: 50% of prompt tokens repeat" in out


def test_two_users_who_ask_the_same_get_the_same_bytes(files: Path) -> None:
    for command in (("explain",), ("plan",), ("plan", "-o", "json"), ("plan", "--what-if", "gpus=+8xH200")):
        first = run(files, *command)
        write(files / "nodes.yaml", *reversed(mixed_nodes()))
        assert run(files, *command) == first
        write(files / "nodes.yaml", *mixed_nodes())


def test_the_explanation_for_machines_has_the_levers(files: Path) -> None:
    document = json.loads(run(files, "explain", "-o", "json")[1])
    names = {lever["name"] for lever in document["levers"]}
    assert {"W8A8 fp8", "replicas ×2", "KV cache fp8"} <= names
    assert document["plan"]["forecast"]["output_tokens_per_second"]["central"] > 0
    assert all(each["cost_per_hour"] for each in document["alternatives"])


def test_a_refusal_is_explained_too(files: Path) -> None:
    write(files / "nodes.yaml", gpu_node("n", "NVIDIA-GeForce-RTX-3070", 1))
    code, out, _ = run(files, "explain")
    assert code == 1
    assert "Refused    " in out
    assert "Would fit" in out
    assert "Levers" not in out


def test_what_ifs_stand_beside_the_answer_as_asked(files: Path) -> None:
    changes = (
        "gpus=+8xH200",
        "gpus=2xL4",
        "concurrency=64",
        "context=999999",
        "prompt-tokens=500,output-tokens=50",
    )
    code, out, _ = run(files, "plan", *(part for change in changes for part in ("--what-if", change)))
    assert code == 0
    lines = out.splitlines()
    assert lines[1].startswith("as asked")
    by_change = {line.split("  ")[0].strip().replace(", ", ","): line for line in lines[2:7]}
    assert list(by_change) == list(changes)
    assert "NVIDIA-L4" in by_change["gpus=2xL4"]
    assert "refused: ContextTooLong" in by_change["context=999999"]
    assert any(line.startswith("- context=999999: spec.workload.maxModelLen is 999,999") for line in lines)


def test_what_ifs_for_machines(files: Path) -> None:
    _, out, _ = run(
        files, "plan", "-o", "json", "--what-if", "gpus=8xB200", "--what-if", "kv-cache-dtype=fp8"
    )
    document = json.loads(out)
    other, cache = document["whatIf"]
    assert other["gpus"].endswith("NVIDIA-B200")
    assert other["ttftSeconds"] < document["plan"]["forecast"]["ttft_seconds"]["central"]
    assert cache["whatIf"] == "kv-cache-dtype=fp8"
    assert cache["fits"] is True


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(
            "memory=9", "Write NAME=VALUE with one of gpus, replicas, concurrency", id="an unknown name"
        ),
        pytest.param("gpu=8xH100", "'gpu=8xH100' is not understood. Write gpus=VALUE", id="a misspelt name"),
        pytest.param("gpus=many", "'many' is not a number of GPUs, as +8xH100", id="GPUs of the wrong form"),
        pytest.param("context=long", "'long' is not a whole number of at least 1", id="no number"),
        pytest.param("ttft=fast", 'spec.objectives.ttft is "fast": must be a duration', id="no duration"),
        pytest.param("gpus=+8xH1000", "H1000 is not a GPU that this version knows. Did you mean", id="a GPU"),
        pytest.param("concurrency=0", "'0' is not a whole number of at least 1", id="nobody at all"),
        pytest.param("replicas=2000", "replicas is 2000; it must be between 1 and 1000", id="out of bounds"),
        pytest.param("concurrency", "Write concurrency=VALUE", id="no value"),
    ],
)
def test_a_what_if_that_is_not_understood_is_bad_input(files: Path, change: str, words: str) -> None:
    code, out, err = run(files, "plan", "--what-if", change)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("--what-if") == 1
    assert len(err.splitlines()) == 1


def test_two_plans_are_compared_without_anything_else_at_hand(files: Path) -> None:
    write(files / "nodes.yaml", gpu_node("a", "NVIDIA-L4", 8))
    small = saved(files, "small.json")
    write(files / "nodes.yaml", gpu_node("b", "NVIDIA-H100-80GB-HBM3", 8))
    large = saved(files, "large.json")
    code, out, _ = stowage("plan", "--compare", str(small), str(large))
    assert code == 0
    first, *rows = out.splitlines()
    assert first.split() == ["small.json", "large.json"]
    table = {row.split("  ")[0]: row for row in rows}
    assert "NVIDIA-L4" in table["GPUs of a replica"]
    assert "NVIDIA-H100" in table["GPUs of a replica"]
    assert {"TTFT", "TPOT", "cost of an hour", "nodes"} <= set(table)
    assert rows[-1].startswith("The same in ")
    same = stowage("plan", "--compare", str(small), str(small))[1]
    assert same.startswith("Both plans are the same in all ")
    document = json.loads(stowage("plan", "--compare", str(small), str(large), "-o", "json")[1])
    assert document["samePods"] is False
    assert len(document["different"]["TTFT"]) == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param("[]", "holds no plan", id="a list"),
        pytest.param('{"plan": {"settings": 1}}', "holds no plan", id="a plan that is none"),
        pytest.param('{"plan": null, "reason": "NoGPUs"}', "holds a refusal (NoGPUs)", id="a refusal"),
        pytest.param("a: b: c", "is not valid YAML", id="no YAML"),
        pytest.param("", "holds no documents", id="an empty file"),
    ],
)
def test_a_file_without_a_plan_is_bad_input(files: Path, content: str, words: str) -> None:
    path = files / "broken.json"
    path.write_text(content)
    code, _, err = stowage("plan", "--compare", str(path), str(path))
    assert code == 2
    assert words in err
    assert len(err.splitlines()) == 1


def test_stated_prices_decide_and_are_not_marked_as_defaults(files: Path) -> None:
    assert "(default price)" in run(files, "plan")[1]
    prices = write(files / "prices.yaml", {"currency": "EUR", "perGpuHour": {"H100": 0.01, "L4": 9.0}})
    _, out, _ = run(files, "plan", "--prices", str(prices))
    assert "Plan       1x NVIDIA-H100-80GB-HBM3 (tp1)" in out
    assert "EUR per hour" in out
    assert "(default price)" not in out


@pytest.mark.parametrize(
    ("document", "words"),
    [
        pytest.param({"currency": "EUR"}, "needs perGpuHour", id="no prices"),
        pytest.param({"perGpuHour": {"H1000": 1.0}}, "names H1000", id="an unknown GPU"),
        pytest.param({"perGpuHour": {"H100": "cheap"}}, "is 'cheap'", id="a price that is no number"),
    ],
)
def test_prices_that_cannot_be_used_are_bad_input(files: Path, document: Any, words: str) -> None:
    code, _, err = run(files, "plan", "--prices", str(write(files / "prices.yaml", document)))
    assert code == 2
    assert words in err


def test_without_prices_costs_are_in_gpu_hours(files: Path) -> None:
    prices = write(files / "prices.yaml", {"currency": "EUR", "perGpuHour": {"Tesla-T4": 1.0}})
    assert "GPU-hours per hour" in run(files, "plan", "--prices", str(prices))[1]


@pytest.mark.parametrize("command", ["plan", "explain"])
def test_the_picture_is_an_svg_with_both_phases_and_the_memory(files: Path, command: str) -> None:
    path = files / "plan.svg"
    assert run(files, command, "--picture", str(path))[0] == 0
    root = ElementTree.fromstring(path.read_text(encoding="utf-8"))
    texts = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert any(text.startswith("prefill: ") for text in texts)
    assert any(text.startswith("decode: ") for text in texts)
    assert any(text.startswith("KV cache ") for text in texts)
    code, _, err = run(files, command, "--picture", str(files / "no" / "plan.svg"))
    assert code == 2
    assert "give a file that can be written" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["plan"], "give the file with the LLMDeployment as -f FILE", id="no manifest"),
        pytest.param(["plan", "-f", "x.yaml"], "as --inventory FILE", id="no inventory"),
        pytest.param(["explain", "-f", "x.yaml"], "as --inventory FILE", id="no inventory to explain"),
    ],
)
def test_what_is_missing_is_named(arguments: list[str], words: str) -> None:
    code, _, err = stowage(*arguments)
    assert code == 2
    assert words in err


def test_an_estimator_that_is_not_installed_is_named(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_question, "find_spec", lambda name: None)
    code, _, err = run(files, "plan", "--estimator", "aiconfigurator")
    assert code == 2
    assert "install stowage[estimator]" in err


def test_a_plan_that_the_estimator_does_not_cover_says_who_answered(files: Path) -> None:
    write(files / "nodes.yaml", gpu_node("n", "NVIDIA-GeForce-RTX-4090", 2))
    code, out, err = run(files, "plan", "--estimator", "aiconfigurator")
    assert code == 0
    assert "Estimate   roofline" in out
    assert err == "stowage: aiconfigurator does not cover this plan; the forecast is the roofline's.\n"


def test_an_alternative_has_to_be_one_that_the_spec_allows(files: Path) -> None:
    code, _, err = run(files, "plan", "--alternative", "hf://org/other=folder")
    assert code == 2
    assert "a source of spec.precision.alternatives (it lists none)" in err


@pytest.mark.parametrize("columns", [80, 100, 118])
def test_what_is_printed_keeps_within_the_terminal(files: Path, columns: int) -> None:
    saved(files, "a.json")
    saved(files, "b.json", "--what-if", "concurrency=64")
    what_ifs = (
        "gpus=+8xH100",
        "concurrency=64,kv-cache-dtype=fp8,tensor-parallel-size=2",
        "ttft=1ms",
        "replicas=3",
    )
    answers = {
        "plan": run(files, "plan", columns=columns),
        "explain": run(files, "explain", columns=columns),
        "what-ifs": run(
            files, "plan", *(part for each in what_ifs for part in ("--what-if", each)), columns=columns
        ),
        "compare": stowage(
            "plan", "--compare", str(files / "a.json"), str(files / "b.json"), columns=columns
        ),
    }
    for name, (code, out, _) in answers.items():
        assert code == 0, name
        assert [line for line in out.splitlines() if len(line) > columns] == [], name
    assert len(answers["plan"][1].splitlines()) <= 30


@pytest.mark.parametrize("columns", [80, 100, None])
def test_what_eight_bits_would_bring_is_always_shown_for_a_large_model(
    files: Path, columns: int | None
) -> None:
    large = {
        "hidden_size": 8192,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "intermediate_size": 28672,
    }
    (files / "model" / "config.json").write_text(json.dumps(llama_config(**large)))
    write(files / "nodes.yaml", gpu_node("a", "NVIDIA-H100-80GB-HBM3", 8))
    code, out, _ = run(files, "plan", columns=columns)
    assert code == 0
    assert "8-bit weights would" in out


def test_alternatives_are_compared_with_the_plan_by_the_same_method(files: Path) -> None:
    ranked = run(files, "explain")[1].partition("Ranked")[2].splitlines()
    simulated = json.loads(run(files, "plan", "-o", "json")[1])["plan"]["forecast"]
    assert simulated["method"] == "simulated"
    taken = next(line for line in ranked if line.endswith("; taken"))
    assert f" {simulated['ttft_seconds']['central'] * 1000:.3g} ms " not in taken


def test_what_misses_an_objective_is_never_left_out(files: Path) -> None:
    one = {"tensor": 1, "pipeline": 1}
    spec = manifest(
        workload=WORKLOAD, hardware={"gpus": ["L4"]}, parallelism=one, objectives={"tpot": "15ms"}
    )
    write(files / "llama.yaml", spec)
    code, out, _ = run(files, "plan", columns=80)
    assert (code, "Shortfall  spec.objectives.tpot is 15 ms" in out) in ((0, True), (1, False))


@pytest.mark.parametrize(
    ("names", "more", "words"),
    [
        pytest.param(
            ["one", "two"], (), "2 objects of kind LLMDeployment; choose one by --name (one, two)", id="two"
        ),
        pytest.param(
            ["one"], ("--name", "no"), "no LLMDeployment named no; choose one by --name (one)", id="another"
        ),
        pytest.param(["one", "one"], ("--name", "one"), "rename all but one (one)", id="two of one name"),
    ],
)
def test_the_names_in_a_file_are_told(
    files: Path, names: list[str], more: tuple[str, ...], words: str
) -> None:
    write(files / "llama.yaml", *map(manifest, names))
    code, _, err = run(files, "plan", *more)
    assert code == 2
    assert words in err
